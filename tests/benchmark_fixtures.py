"""Small folders with the real schema of each benchmark: what `fixtures_<name>.py` has in common, and how they are found.

A file `tests/fixtures_<name>.py` has

- `build(place)`: writes usable data into an empty folder, awkward but legal content included (`AWKWARD`, `image_bytes`);
- `BROKEN`: what is wrong -> (a function that breaks such a folder, a regular expression for what `unsee check` says);
- `SETTINGS` (optional): settings of the benchmark under which `build`'s folder is usable too.

tests/test_benchmarks.py then runs the same contract over every file; scripts/make_benchmark_fixtures.py writes the folders.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow
import pyarrow.parquet
from PIL import Image

Break = Callable[[Path], None]

IMAGE: Final = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
"""How a parquet file on the hub holds an image."""
MODES: Final = ("RGB", "RGBA", "L", "CMYK", "P", "LA")
"""Colour modes that occur in real data."""
AWKWARD: Final = ('Zoë "Zed" Ångström-李', "Jean-Luc\nO'Néill", "Ñandú, Ltd; \\co")
"""Names and answers that break careless readers: not ASCII, quotes, a newline, separators, a backslash."""
COLOURS: Final = ("red", "green", "blue", "orange", "purple", "teal", "gold", "pink", "brown", "gray")


@dataclass(frozen=True, kw_only=True)
class Fixture:
    """What the fixture file of one benchmark offers."""

    name: str
    build: Callable[[Path], None]
    broken: Mapping[str, tuple[Break, str]]
    settings: Sequence[Mapping[str, Any]]


def fixtures() -> dict[str, Fixture]:
    """Return the fixtures that lie beside this file, by the name of their benchmark."""
    names = sorted(path.stem.removeprefix("fixtures_") for path in Path(__file__).parent.glob("fixtures_*.py"))
    return {name: _fixture(name) for name in names}


def _fixture(name: str) -> Fixture:
    module = importlib.import_module(f"fixtures_{name}")
    return Fixture(name=name, build=module.build, broken=module.BROKEN, settings=vars(module).get("SETTINGS", ()))


def image_bytes(number: int, mode: str = "RGB", size: int = 24) -> bytes:
    """Return a small picture that differs for every number, as PNG (JPEG for CMYK, which PNG has not)."""
    picture = Image.new("RGB", (size, size), COLOURS[number % len(COLOURS)])
    for bit in range(16):
        picture.putpixel((bit % 4 * 2, bit // 4 * 2), (255, 255, 255) if number >> bit & 1 else (0, 0, 0))
    stream = io.BytesIO()
    picture.convert(mode).save(stream, "JPEG" if mode == "CMYK" else "PNG")
    return stream.getvalue()


def image_cell(number: int, mode: str = "RGB", path: str | None = None) -> dict[str, Any]:
    """Return the picture as a cell of an image column."""
    return {"bytes": image_bytes(number, mode), "path": path}


def write_image(file: Path, number: int, mode: str = "RGB") -> None:
    """Write the picture as a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(image_bytes(number, mode))


def write_shards(folder: Path, rows: Sequence[Mapping[str, Any]], schema: pyarrow.Schema, *, shards: int = 1) -> None:
    """Write rows as `train-00000-of-0000N.parquet` files, types as given and never inferred."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        part = list(rows[shard * len(rows) // shards : (shard + 1) * len(rows) // shards])
        file = folder / f"train-{shard:05}-of-{shards:05}.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(part, schema=schema), file)


def change_rows(file: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Rewrite a parquet file with its rows changed in place by `change`, schema kept."""
    table = pyarrow.parquet.read_table(file)
    rows = table.to_pylist()
    change(rows)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=table.schema), file)


def at(folder: str, change: Callable[[list[dict[str, Any]]], object]) -> Break:
    """Return what changes the rows of a folder's first shard."""
    return lambda place: change_rows(min((place / folder).glob("*.parquet")), change)


def put(folder: str, row: int, column: str, change: Callable[[Any], Any]) -> Break:
    """Return what changes one cell there."""
    return at(folder, lambda rows: rows[row].update({column: change(rows[row][column])}))


def without(folder: str, column: str) -> Break:
    """Return what takes a column from a folder of one shard."""
    file = f"{folder}/train-00000-of-00001.parquet"
    return lambda place: pyarrow.parquet.write_table(
        pyarrow.parquet.read_table(place / file).drop_columns([column]), place / file
    )


def renamed(folder: str, name: str) -> Break:
    """Return what gives the one shard of a folder another name, such as `test-00000-of-00001`."""
    return lambda place: min((place / folder).iterdir()).rename(place / folder / f"{name}.parquet")


def cut_image(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Return an image cell whose bytes end in the middle."""
    return {**cell, "bytes": cell["bytes"][: len(cell["bytes"]) // 2]}
