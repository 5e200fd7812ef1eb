"""The contract of benchmarks, run on a small folder of data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unsee import config
from unsee.api import Benchmark
from unsee.data.check import examine
from unsee.data.fingerprint import fingerprint
from unsee.testing.checks import refusal, require


def benchmark_contract(benchmark: type[Benchmark], place: Path, settings: Mapping[str, Any] | None = None) -> None:
    """Check a benchmark on usable data.

    It recognises the data, finds no fault in them, gives the same examples and vocabulary each time and in any order of
    calls, decodes images to RGB with a key of their content, and rejects unknown settings.

    Args:
        benchmark: The class.
        place: A folder with usable data, as small as can be.
        settings: Settings under which the data are usable; none = the defaults.

    Raises:
        AssertionError: One of these does not hold.
    """
    require(benchmark.fits(place), f"{benchmark.__name__}.fits does not recognise {place}")
    opened, reopened = (_open_benchmark(benchmark, place, settings) for _ in range(2))
    vocabulary = opened.vocabulary()
    reopened.examples("eval")
    require(vocabulary == reopened.vocabulary(), "the vocabulary depends on whether examples were asked for before")
    report = examine(opened, str(place))
    require(report.usable and not report.problems, f"the data should be usable: {report}")
    require("forget" in report.counts, "no example is to be forgotten")
    require(fingerprint(opened) == fingerprint(reopened), "examples differ from one opening to the next")
    spelled_out = _open_benchmark(benchmark, place, config.settings_of(opened.settings))
    require(fingerprint(spelled_out) == fingerprint(opened), "examples differ with all settings spelled out")
    _require_images(opened)
    message = refusal(
        lambda: _open_benchmark(benchmark, place, {"nonsense": 1}), "the unknown setting benchmark.nonsense"
    )
    require(f"setting of benchmark {benchmark.name}" in message, f"unclear refusal of an unknown setting: {message}")


def _open_benchmark(benchmark: type[Any], place: Path, settings: Mapping[str, Any] | None) -> Benchmark:
    values: Any = config.build(benchmark.settings_type, settings or {}, where=f"benchmark {benchmark.name}")
    opened: Benchmark = benchmark(place, values)
    return opened


def _require_images(opened: Benchmark) -> None:
    pixels_by_key: dict[str, bytes] = {}
    for example in (*opened.examples("train"), *opened.examples("eval")):
        if example.image is not None:
            picture = example.image.load()
            require(picture.mode == "RGB", f"the image of {example.id} has mode {picture.mode}, expected RGB")
            pixels = pixels_by_key.setdefault(example.image.key, picture.tobytes())
            require(pixels == picture.tobytes(), f"two images have the key {example.image.key} and other pixels")
    require(len(pixels_by_key) > 1, "the data should have at least two different images")
