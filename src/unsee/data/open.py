"""Detection of data layouts, and opening of benchmarks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from unsee import config
from unsee.api import registry
from unsee.api.benchmark import Benchmark, Hub, Place
from unsee.config import paths
from unsee.data.given import source_of
from unsee.errors import NoDataError, UserError
from unsee.utils.files import is_too_long

_HUB_ID: Final = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_WORDS: Final = ("lab", "lab:documents", "lab:hazards")
"""Names of built-in data."""
OBJECT: Final = "<object>"
"""Place of data that were given as a Python object, in run.yaml."""
_BY_FILE: Final = {"lab": "world.json"}
"""Benchmark with slow imports -> file that its layout requires."""


def open_benchmark(data: Path | str, benchmark: str | Mapping[str, Any] = "") -> Benchmark:
    """Open built-in data ("lab", "lab:hazards"), a path, or a hub data set ("owner/name").

    `benchmark` gives the layout: a name, or a mapping with `name` and settings; without a name it is recognised.
    """
    name, values = config.name_and_settings(benchmark)
    word, _, request = str(data).partition(":")
    if word == "lab" and name in ("", "lab"):
        lab = _class("lab")
        return lab(None, _settings(lab, values), request=request or "people")
    if name:
        registry.require("benchmarks", name)
    if word == "lab" and (is_too_long(data) or not Path(data).exists()):
        raise UserError(
            f"The lab is not laid out as {name}. Give --data with the place of {name} data, or --benchmark lab."
        )
    data_place = location(data)
    benchmark_class = _class(name) if name else _recognise_benchmark(data_place)
    settings = _settings(benchmark_class, values)
    with registry.faults("benchmarks", benchmark_class.name):
        opened_benchmark: Benchmark = benchmark_class(data_place, settings)
    if not isinstance(opened_benchmark.settings, benchmark_class.settings_type):
        opened_benchmark.settings = settings  # a plugin that does not keep them; run.yaml has to record them
    return opened_benchmark


def of_object(data: Any, benchmark: str | Mapping[str, Any] = "") -> Benchmark:
    """Open data given as a Python object.

    That is a benchmark, a list of mappings, a DataFrame or a `datasets.Dataset`.

    Raises:
        UserError: The object is no table, or `benchmark` is another layout than that of a table.
    """
    if isinstance(data, Benchmark):
        return data
    name, values = config.name_and_settings(benchmark)
    if name not in ("", "folder"):
        raise UserError(f"Data given as an object are read as a table, not as {name}. Leave `benchmark` out.")
    benchmark_class = _class("folder")
    opened_benchmark: Benchmark = benchmark_class(source_of(data), _settings(benchmark_class, values))
    return opened_benchmark


def benchmark_arguments(benchmark: Benchmark) -> str | dict[str, Any]:
    """Return the arguments that reopen the same benchmark, with every setting spelled out."""
    settings = config.settings_of(benchmark.settings)
    return {"name": benchmark.name, **settings} if settings else benchmark.name


def _class(name: str) -> type[Any]:
    """Return a benchmark class as a callable, since its constructor is not in the types."""
    return registry.load("benchmarks", name)


def _settings(benchmark_class: type[Benchmark], values: Mapping[str, Any]) -> Any:
    settings: Any = config.build(benchmark_class.settings_type, values, where=f"benchmark {benchmark_class.name}")
    return settings


def location(data: Path | str) -> Place:
    """Return the folder, file or hub id of data, or raise if nothing can lie there."""
    if str(data) == OBJECT:
        raise NoDataError(
            "The data of this run were given as a Python object, which no file holds. Give the data: --data, or the same object."
        )
    if not str(data):
        raise NoDataError(
            "No data were given. Give --data: a folder, a file, a hub id such as owner/name, or the word lab."
        )
    paths.require_possible(data, "--data", NoDataError)
    path = Path(data)
    if path.is_file() or path.is_dir():
        return path
    if path.exists():
        raise UserError(f"{data} is a device or a pipe, and data are read twice. Give a folder or a file.")
    if _HUB_ID.fullmatch(str(data)) and not paths.is_here(str(data)):
        return Hub(str(data))
    raise NoDataError(
        f"No data at {data}: expected a folder, a file, a hub id such as owner/name, or the word lab.{paths.near(data, _WORDS)}"
    )


def _recognise_benchmark(place: Place) -> type[Any]:
    """Return the only benchmark that fits. A generic one if no other does."""
    names = registry.names("benchmarks")
    if isinstance(place, Hub):
        return _by_id(place, [_class(name) for name in names if name not in _BY_FILE])
    candidate_names = [name for name in names if name not in _BY_FILE or (place / _BY_FILE[name]).is_file()]
    matches = [candidate for candidate in map(_class, candidate_names) if candidate.fits(place)]
    best_matches = [candidate for candidate in matches if not candidate.generic] or matches
    if len(best_matches) == 1:
        return best_matches[0]
    if best_matches:
        options = " or ".join(f"--benchmark {candidate.name}" for candidate in best_matches)
        raise UserError(f"{place} is laid out as several benchmarks are; say which it is: {options}.")
    layouts = "\n  ".join(f"{candidate.name}: {candidate.layout}" for candidate in map(_class, names))
    raise UserError(
        f"Nothing that unsee knows lies at {place}. Looked for\n  {layouts}\nGive --benchmark NAME to see what is missing."
    )


def _by_id(hub: Hub, candidates: list[type[Any]]) -> type[Any]:
    for candidate in candidates:
        if hub.id in candidate.hub:
            return candidate
    ids = ", ".join(f"{hub_id} ({candidate.name})" for candidate in candidates for hub_id in candidate.hub)
    raise UserError(
        f"{hub} is no folder here, and as a hub id it is none that unsee knows: {ids or 'none'}."
        f"{paths.near(hub.id)} Say --benchmark NAME if it is laid out as one of them."
    )
