"""Tables in CSV, JSON, JSON lines and Parquet files, and checks of their images."""

from __future__ import annotations

import codecs
import csv
import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TextIO

from unsee.api.pictures import decode_image
from unsee.errors import UserError, short_repr
from unsee.utils.parsing import POINTER, is_pointer, parse_json, require_fetched

if TYPE_CHECKING:
    import pyarrow

SUFFIXES: Final = (".jsonl", ".json", ".csv", ".parquet")
"""Suffixes of table files."""
IMAGES: Final = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
"""Suffixes of image files in folders without a table."""
DELIMITERS: Final = ",;\t|"
"""Possible CSV delimiters: spreadsheets write a semicolon where the comma is the decimal mark."""
FALLBACK: Final = "cp1252"
"""Encoding of CSV files that are not UTF-8: that of Excel in Western Europe and America."""
_OTHER_SCRIPT: Final = re.compile(r"[^\W\d_a-zA-Z]{4}")
"""Four letters in a row that no word of a Western language has, read as cp1252: those of another encoding."""
_BLOCK: Final = 2**20
"""Characters decoded at a time."""
_HEADER: Final = 2**16
"""Characters of the header that are examined."""


def tables_at(place: Path) -> list[Path]:
    """Return the table files at a place: the file itself, or those in the folder that are not hidden."""
    if not place.is_dir():
        return [place] if place.is_file() else []
    files = (path for path in place.iterdir() if not path.name.startswith("."))
    return sorted(path for path in files if path.suffix.lower() in SUFFIXES and path.is_file())


def find_table(place: Path) -> Path:
    """Return the only table at `place`: the file, `data.*` in the folder, or its only table."""
    if place.is_file():
        return place
    if not place.is_dir():
        raise UserError(f"No data at {place}: expected a folder or a file ({', '.join(SUFFIXES)}).")
    tables = tables_at(place)
    candidates = [path for path in tables if path.stem == "data"] or tables
    if len(candidates) != 1:
        names = ", ".join(path.name for path in candidates) or "none"
        raise UserError(
            f"{place} must hold one table named data{{{','.join(SUFFIXES)}}}, found: {names}. "
            "Name the one that is meant, e.g. --data FOLDER/rows.csv."
        )
    return candidates[0]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a table in file order, as mappings from column to value."""
    readers = {".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".parquet": _parquet}
    if path.suffix.lower() not in readers:
        raise UserError(f"{path.name} is no table unsee reads; expected one of {', '.join(SUFFIXES)}.")
    with reading(path):
        require_fetched(path)
        rows = readers[path.suffix.lower()](path)
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise UserError(f"{path.name} row {number} must be an object with named columns, got {short_repr(row)}.")
    return rows


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn errors of reading a text file into UserErrors."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from error
    except UnicodeError as error:  # UTF-16 that ends in the middle of a character
        raise UserError(f"{path} is damaged text ({error}); save it as UTF-8.") from error
    except csv.Error as error:
        advice = "check its quotes, or save it as JSON lines (.jsonl)"
        raise UserError(f"Cannot read {path}: {error}; {advice}.") from error
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error}") from error


def table_warnings(path: Path) -> list[str]:
    """Return warnings about the encoding and form of a table."""
    if path.suffix.lower() != ".csv":
        return []
    warning = csv_format(path).warning
    return [f"{path.name} {warning}"] if warning else []


def is_file(path: Path) -> bool:
    """Tell whether there is a file of this path.

    Raises:
        UserError: No file can have it (as an encoded picture in its place), or its folder may not be entered.
    """
    try:
        return path.is_file()
    except OSError as error:
        raise UserError(f"{short_repr(str(path), 80)} cannot be opened: {error.strerror}.") from error


def file_at(folder: Path, name: str) -> Path | None:
    """Return the file of a path below a folder (or an absolute one), also as Windows or a Mac writes it, or None.

    Raises:
        UserError: As `is_file`.
    """
    slashed = name.replace("\\", "/")
    spellings = (name, slashed, unicodedata.normalize("NFC", slashed), unicodedata.normalize("NFD", slashed))
    return next((folder / spelling for spelling in dict.fromkeys(spellings) if is_file(folder / spelling)), None)


def unreadable(path: Path) -> str:
    """Return why the image cannot be used, or empty if it decodes in full."""
    return undecodable(path) if path.is_file() else "is missing"


def undecodable(image: Path | BinaryIO) -> str:
    """Return why a file or its bytes are no usable image, or empty if it decodes in full."""
    if isinstance(image, Path) and is_pointer(image):
        return POINTER
    try:
        decode_image(image)
    except UserError as error:
        return str(error)
    return ""


def _jsonl(path: Path) -> list[Any]:
    return _lines(path.read_text(encoding="utf-8-sig"), path.name)


def _json(path: Path) -> list[Any]:
    text = path.read_text(encoding="utf-8-sig")
    if text.lstrip()[:1] == "{" and _several(text):
        return _lines(text, path.name)  # JSON lines, whatever the suffix says
    rows = parse_json(text, path.name)
    if not isinstance(rows, list):
        raise UserError(f"{path.name} must hold a list of rows, got {type(rows).__name__}.")
    return rows


def _several(text: str) -> bool:
    """Tell whether anything follows the first JSON value."""
    try:
        _, end = json.JSONDecoder().raw_decode(text.lstrip())
    except (ValueError, RecursionError):
        return False
    return bool(text.lstrip()[end:].strip())


def _lines(text: str, name: str) -> list[Any]:
    lines = enumerate(text.split("\n"), 1)
    return [parse_json(line, f"{name} line {number}") for number, line in lines if line.strip()]


def _csv(path: Path) -> list[Any]:
    return list(csv_rows(path))


@dataclass(frozen=True)
class CsvFormat:
    """Encoding and delimiter of a CSV file."""

    encoding: str
    delimiter: str

    @property
    def warning(self) -> str:
        """Warning about the encoding, or empty for UTF-8."""
        if self.encoding != FALLBACK:
            return ""
        return f"is not UTF-8 text and is read as Windows-1252 ({FALLBACK}); look at its accented letters, or save it as UTF-8."


def csv_format(path: Path) -> CsvFormat:
    """Return encoding and delimiter of a CSV file.

    UTF-8, UTF-16 with a mark, else cp1252; the delimiter most frequent in the header.
    """
    encoding = _encoding(path)
    with path.open(encoding=encoding, newline="") as file:
        _skip_blank_lines(file)
        header = _unquoted(file.readline(_HEADER))
    counts = {mark: header.count(mark) for mark in DELIMITERS}
    delimiter = max(counts, key=lambda mark: counts[mark])
    return CsvFormat(encoding, delimiter if counts[delimiter] else ",")


def _unquoted(line: str) -> str:
    """Return a CSV line without its quoted parts."""
    return re.sub(r'"[^"]*"', "", line)


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return "utf-16"
    for encoding in ("utf-8-sig", FALLBACK):
        try:
            with path.open(encoding=encoding) as stream:
                blocks = iter(partial(stream.read, _BLOCK), "")
                if not any(encoding == FALLBACK and _OTHER_SCRIPT.search(block) for block in blocks):
                    return encoding
        except UnicodeDecodeError:
            continue
    raise UserError(f"{path} is not UTF-8 text, and no Windows-1252 either. Save it as UTF-8.")


def csv_rows(path: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of a CSV file one at a time."""
    csv_form = csv_format(path)
    with path.open(encoding=csv_form.encoding, newline="") as file:
        blank_lines = _skip_blank_lines(file)
        reader = csv.DictReader(file, strict=True, delimiter=csv_form.delimiter)
        require_distinct(reader.fieldnames or [], path.name)
        for number, row in enumerate(reader, 1):
            # DictReader collects surplus cells under None and fills missing ones with None.
            if None in row or None in row.values():
                raise UserError(
                    f"{path.name} row {number} has more or fewer cells (line {blank_lines + reader.line_num}) than the header, whose "
                    f"columns are separated by {csv_form.delimiter!r}; check its quotes."
                )
            # Excel on Windows ends lines in a cell as it ends rows.
            yield {column: cell.replace("\r\n", "\n") for column, cell in row.items()}


def _skip_blank_lines(file: TextIO) -> int:
    """Move to the first line that is not blank, and return the number of those before it."""
    count, start = 0, file.tell()
    while (line := file.readline(_HEADER)) and not line.strip():
        count, start = count + 1, file.tell()
    file.seek(start)
    return count


def require_distinct(columns: Sequence[str], name: str) -> None:
    """Raise if a table has duplicate columns, of which the last would win silently."""
    if duplicates := sorted({column for column in columns if columns.count(column) > 1}):
        raise UserError(
            f"{name} has column {', '.join(map(short_repr, duplicates))} twice; rename or remove one of them."
        )


def _parquet(path: Path) -> list[Any]:
    import pyarrow
    import pyarrow.parquet

    try:
        require_distinct(pyarrow.parquet.read_schema(path).names, path.name)
        return table_rows(pyarrow.parquet.read_table(path), path)
    except pyarrow.ArrowException as error:
        raise UserError(f"{path} is no readable Parquet file: {error}") from error


def table_rows(table: pyarrow.Table, name: object) -> list[dict[str, Any]]:
    """Return the rows of an Arrow table, with the names of classes where `datasets` wrote their numbers.

    Raises:
        UserError: It holds a value that Python does not have, such as a year beyond 9999; `name` is that of the table.
    """
    try:
        rows: list[dict[str, Any]] = table.to_pylist()
    except (OverflowError, ValueError) as error:
        raise UserError(f"{name} holds a value out of range ({error}); leave its column out.") from error
    for column, names in _class_names((table.schema.metadata or {}).get(b"huggingface", b"")).items():
        if column in table.column_names and str(table.schema.field(column).type).startswith("int"):
            for row in rows:
                row[column] = class_name(row[column], names)
    return rows


@lru_cache(maxsize=64)
def _class_names(features: bytes) -> dict[str, list[str]]:
    """Return column -> names of its classes, from what `datasets` writes into the schema of a table."""
    try:
        columns = json.loads(features)["info"]["features"].items()
        return {
            column: feature["names"]
            for column, feature in columns
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def class_name(number: int | None, names: Sequence[str]) -> str | None:
    """Return the name of a class, or None without one, for which `datasets` writes -1."""
    return names[number] if number is not None and 0 <= number < len(names) else None
