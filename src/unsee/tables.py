"""Rows out of CSV, JSON, JSON lines and Parquet files, and whether the images they name can be read."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

from PIL import Image

from unsee.errors import UserError

SUFFIXES: Final = (".jsonl", ".json", ".csv", ".parquet")
"""File types that hold rows."""


def tables_at(place: Path) -> list[Path]:
    """Return the files that may hold rows: the file itself, whatever its type, or the tables in the folder."""
    if not place.is_dir():
        return [place] if place.is_file() else []
    return sorted(path for path in place.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())


def find_table(place: Path) -> Path:
    """Return the one file with rows at `place`: the file itself, `data.*` in the folder, or the only table there."""
    if place.is_file():
        return place
    if not place.is_dir():
        raise UserError(f"No data at {place}: expected a folder or a file ({', '.join(SUFFIXES)}).")
    found = tables_at(place)
    chosen = [path for path in found if path.stem == "data"] or found
    if len(chosen) != 1:
        listed = ", ".join(path.name for path in chosen) or "none"
        raise UserError(
            f"{place} must hold one table named data{{{','.join(SUFFIXES)}}}, found: {listed}. "
            "Name the one that is meant, e.g. --data FOLDER/rows.csv."
        )
    return chosen[0]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a table in file order, every row a mapping from column to value."""
    readers = {".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".parquet": _parquet}
    if path.suffix.lower() not in readers:
        raise UserError(f"{path.name} is no table unsee reads; expected one of {', '.join(SUFFIXES)}.")
    with reading(path):
        rows = readers[path.suffix.lower()](path)
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise UserError(f"{path.name} row {number} must be an object with named columns, got {row!r:.80}.")
    return rows


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what may go wrong with a file of text into a UserError."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from error
    except (OSError, csv.Error) as error:
        raise UserError(f"Cannot read {path}: {error}") from error


def unreadable(path: Path) -> str:
    """Return why the image cannot be used; empty if every pixel of it decodes."""
    return undecodable(path) if path.is_file() else "is missing"


def undecodable(image: Path | BinaryIO) -> str:
    """Return why the file or its bytes cannot be used as an image; empty if every pixel decodes."""
    try:
        with Image.open(image) as opened:
            opened.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return f"cannot be decoded ({error})"
    return ""


def _jsonl(path: Path) -> list[Any]:
    return _lines(path.read_text(encoding="utf-8-sig"), path.name)


def _json(path: Path) -> list[Any]:
    text = path.read_text(encoding="utf-8-sig")
    if text.lstrip()[:1] == "{" and _several(text):
        return _lines(text, path.name)  # JSON lines, whatever the suffix says
    rows = _parse(text, path.name)
    if not isinstance(rows, list):
        raise UserError(f"{path.name} must hold a list of rows, got {type(rows).__name__}.")
    return rows


def _several(text: str) -> bool:
    """Tell whether there is more behind the first JSON value."""
    try:
        _, end = json.JSONDecoder().raw_decode(text.lstrip())
    except json.JSONDecodeError:
        return False
    return bool(text.lstrip()[end:].strip())


def _lines(text: str, name: str) -> list[Any]:
    lines = enumerate(text.split("\n"), 1)
    return [_parse(line, f"{name} line {number}") for number, line in lines if line.strip()]


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is no valid JSON: {error}") from error


def _csv(path: Path) -> list[Any]:
    return list(csv_rows(path))


def csv_rows(path: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of a CSV file, one in memory at a time."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        for number, row in enumerate(csv.DictReader(file, strict=True), 1):
            # DictReader collects surplus cells under None and fills missing ones with None.
            if None in row or None in row.values():
                raise UserError(f"{path.name} row {number} has more or fewer cells than the header; check its quotes.")
            yield row


def _parquet(path: Path) -> list[Any]:
    import pyarrow
    import pyarrow.parquet

    try:
        return list(pyarrow.parquet.read_table(path).to_pylist())
    except pyarrow.ArrowException as error:
        raise UserError(f"{path} is no readable Parquet file: {error}") from error
