"""Nested records of data sets: checked fields, images wherever they lie, faults by row."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

from unsee.api.benchmark import Benchmark, Place
from unsee.api.example import Example, ImageFile
from unsee.data.arrow import ArrowImage
from unsee.data.tables import IMAGES, SUFFIXES, file_at, read_rows, unreadable
from unsee.errors import UserError, list_message, short_repr, unknown_name
from unsee.utils.parsing import as_text, as_texts, decoded, is_empty, text_fault

_SHOWN: Final = 10
"""Most faults listed in an error."""


class Record:
    """One record, read field by field. Errors name the field."""

    def __init__(self, cells: Mapping[str, Any], columns: Mapping[str, str] | None = None, prefix: str = "") -> None:
        """Store `cells`.

        `columns` maps our field names to those of the file (not of nested records), `prefix` locates a nested record.
        """
        self._cells = cells
        self._columns = dict(columns or {})
        self._prefix = prefix

    def __iter__(self) -> Iterator[str]:
        """Yield the field names of the file."""
        return iter(self._cells)

    def field_label(self, name: str) -> str:
        """Return the field's name in the file, with its parent record."""
        return f"{self._prefix}{self._columns.get(name, name)}"

    def has(self, name: str) -> bool:
        """Tell whether the field exists and is not null (None, NaN or empty text)."""
        return not is_empty(self._value(name))

    def text(self, name: str) -> str:
        """Return a required text field, stripped."""
        if not self.has(name):
            raise UserError(f"{self.field_label(name)} is {'empty' if self._has_column(name) else 'missing'}.")
        return self.optional(name)

    def blank(self, *names: str) -> bool:
        """Tell whether one of the fields exists but is empty."""
        return any(self._has_column(name) and not self.has(name) for name in names)

    def optional(self, name: str) -> str:
        """Return an optional field as text."""
        value = self._value(name)
        text = as_text(value)
        if text is None:
            raise UserError(f"{self.field_label(name)} must be text, got {short_repr(value)}.")
        return self._clean(name, text)

    def strings(self, name: str) -> tuple[str, ...]:
        """Return a list of texts without empty ones. A single text is a list of one, a missing field is empty."""
        value = self._decoded(name)
        texts = as_texts(value)
        if texts is None:
            raise UserError(f"{self.field_label(name)} must be a list of texts, got {short_repr(value)}.")
        return tuple(self._clean(name, text) for text in texts if text)

    def mapping(self, name: str) -> dict[str, Any]:
        """Return an object, also if written as JSON text. A missing one is empty."""
        value = self._decoded(name)
        if is_empty(value):
            return {}
        if not isinstance(value, Mapping):
            raise UserError(f"{self.field_label(name)} must be an object with named fields, got {short_repr(value)}.")
        return {str(key): item for key, item in value.items()}

    def part(self, name: str) -> Record:
        """Return an object field as a record."""
        if not self.has(name):
            raise UserError(f"{self.field_label(name)} is missing.")
        return Record(self.mapping(name), prefix=f"{self.field_label(name)}.")

    def parts(self, name: str) -> list[Record]:
        """Return a list of objects as records. A missing field is empty."""
        value = self._decoded(name)
        if is_empty(value):
            return []
        if not isinstance(value, Sequence) or not all(isinstance(item, Mapping) for item in value):
            raise UserError(f"{self.field_label(name)} must be a list of objects, got {short_repr(value)}.")
        return [Record(item, prefix=f"{self.field_label(name)}[{number}].") for number, item in enumerate(value, 1)]

    def raw(self, name: str) -> Any:
        """Return the field unchanged, or None if it is missing."""
        return self._value(name)

    def _clean(self, name: str, text: str) -> str:
        """Return the text, or raise if it cannot be written or tokenised."""
        if fault := text_fault(text):
            raise UserError(f"{self.field_label(name)} {fault}.")
        return text

    def _has_column(self, name: str) -> bool:
        return self._columns.get(name, name) in self._cells

    def _value(self, name: str) -> Any:
        return self._cells.get(self._columns.get(name, name))

    def _decoded(self, name: str) -> Any:
        """Return the field, parsed if it is JSON text."""
        value = self._value(name)
        return (
            decoded(value, f"{self.field_label(name)} ({short_repr(value, 40)})") if isinstance(value, str) else value
        )


class Gathered:
    """Result of a loader: examples of both splits, faults by row, images to check."""

    def __init__(self, *roots: Path, strict: bool = True) -> None:
        """Start empty. Image paths are searched below `roots`.

        Unless `strict`, unreadable rows are left out and counted.
        """
        self.strict = strict
        self.dropped: list[str] = []
        self.train: list[Example] = []
        self.judged: list[Example] = []
        self.faults: list[str] = []
        self._roots = roots
        self._images: dict[Path, str] = {}
        self._foreign_paths: dict[Path, str] = {}
        """File -> absolute path of another machine that it was found for by its bare name."""
        self.items = 0
        self.left_out = 0
        self._cells: list[tuple[ArrowImage, str]] = []
        self._where = ""

    @contextmanager
    def reading(self, where: str, *, vital: bool = False) -> Iterator[None]:
        """Record an error in the block as a fault of the row `where`, and leave the block.

        `vital`: strict or not.
        """
        outer_where, self._where = self._where, where
        try:
            yield
        except UserError as error:
            (self.faults if self.strict or vital else self.dropped).append(f"{where}: {error}")
        self._where = outer_where

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Read a part of a row, whose error ends this block only."""
        with self.reading(f"{self._where}, {name}"):
            yield

    def image(self, raw_path: str) -> ImageFile:
        """Return the image that a row names, located below the roots."""
        path = locate_file(raw_path, self._roots)
        if path is None:
            searched_roots = ", ".join(str(root) for root in self._roots)
            raise UserError(
                f"image {raw_path} is missing (looked for it, and for its last parts, in {searched_roots})."
            )
        if path.parent in self._roots and PurePosixPath(raw_path.replace("\\", "/")).is_absolute():
            known_path = self._foreign_paths.setdefault(path, raw_path)
            if known_path != raw_path:
                raise UserError(
                    f"image {raw_path} and {known_path} would both be {path}, by their name alone; copy the folders, too."
                )
        return self.file(path)

    def file(self, path: Path) -> ImageFile:
        """Return an image file, recording the first row that names it."""
        self._images.setdefault(path, self._where)
        return ImageFile(path)

    def cell(self, image: ArrowImage) -> ArrowImage:
        """Return an image in a table cell, recording the first row that names it."""
        self._cells.append((image, self._where))
        return image

    def complete(self, items: Sequence[Record], *needed: str) -> list[Record]:
        """Return the complete items, and count the others."""
        complete_items = [item for item in items if all(item.has(name) for name in needed)]
        self.items += len(items)
        self.left_out += len(items) - len(complete_items)
        return complete_items

    def gaps(self) -> list[str]:
        """Return the number of incomplete items, by reason."""
        lines = [f"{self.left_out} of {self.items} items have no question or no answer."] if self.left_out else []
        if self.dropped:
            first_rows = "; ".join(self.dropped[:_SHOWN])
            lines.append(f"{len(self.dropped)} rows or items cannot be read and are left out: {first_rows}")
        return lines

    def problems(self) -> list[str]:
        """Return the faults, and the images that do not decode."""
        reasons = {path: unreadable(path) for path in self._images}
        image_faults = [f"{self._images[path]}: image {path} {reason}." for path, reason in reasons.items() if reason]
        # The last of equals that is put in stays: the one that was named first.
        images_by_key = {image.key: (image, row_name) for image, row_name in reversed(self._cells)}
        image_faults += [
            f"{row_name}: the image {reason}."
            for image, row_name in reversed(images_by_key.values())
            if (reason := image.fault())
        ]
        return [*self.faults, *image_faults]

    def require(self, place: object) -> None:
        """Raise if any row could not be read."""
        if self.faults:
            raise UserError(list_message(f"{place} cannot be used:", self.faults, _SHOWN, " (unsee check lists all)"))


class RecordBenchmark(Benchmark):
    """Benchmark whose files are read once, into `gathered`."""

    place: Place

    @cached_property
    @abstractmethod
    def gathered(self) -> Gathered:
        """Read all files."""

    def require(self) -> None:
        """Raise if any row could not be read."""
        self.gathered.require(self.place)

    def examples(self, split: Literal["train", "eval"]) -> Sequence[Example]:
        """Return the training or the evaluation examples."""
        self.require()
        return self.gathered.train if split == "train" else self.gathered.judged

    def problems(self) -> Sequence[str]:
        """Return the faults of rows and images."""
        return self.gathered.problems()

    def warnings(self) -> Sequence[str]:
        """Return the number of incomplete items, by reason."""
        return self.gathered.gaps()


def locate_file(raw_path: str, roots: Sequence[Path]) -> Path | None:
    """Find the file of a path as own tables do (`file_at`), or of a foreign one below the roots by its last parts.

    A relative path is not found by its bare name alone, for another folder's file may have the same (`1.jpg`).
    """
    foreign_path = PurePosixPath(raw_path.replace("\\", "/"))
    parts = [part for part in foreign_path.parts if part != "/"]
    names = [raw_path]
    if ".." not in parts:
        shortest = 1 if foreign_path.is_absolute() else 2
        names += ["/".join(parts[start:]) for start in range(max(1, len(parts) - shortest + 1))]
    files = (file_at(root, name) for name in names for root in roots)
    return next((file for file in files if file is not None), None)


def images_in(folder: Path) -> list[Path]:
    """Return the image files of a folder that are not hidden, sorted by name, or none if it does not exist."""
    files = (path for path in (folder.iterdir() if folder.is_dir() else ()) if not path.name.startswith("."))
    return sorted(path for path in files if path.suffix.lower() in IMAGES and path.is_file())


def named_tables(folder: Path, stem: str) -> list[Path]:
    """Return the tables of this name in a folder, of all types."""
    return [folder / f"{stem}{suffix}" for suffix in SUFFIXES if (folder / f"{stem}{suffix}").is_file()]


def named_table(folder: Path, stem: str) -> Path | None:
    """Return the table of this name in a folder, of any type, or None if there is none.

    Raises:
        UserError: There are several, of which one would be left unread.
    """
    files = named_tables(folder, stem)
    if len(files) > 1:
        raise UserError(f"{folder} holds {' and '.join(file.name for file in files)}; keep one of them.")
    return files[0] if files else None


def require_any(setting: str, names: Sequence[str]) -> None:
    """Raise if a setting that chooses what is judged chooses nothing."""
    if not names:
        raise UserError(f"{setting} names nothing, so nothing would be judged. Leave it out for all.")


def named_records(tables: Mapping[Path, Sequence[str]], given: Mapping[str, str]) -> dict[Path, list[Record]]:
    """Read tables whose columns may have other names or another case.

    Args:
        tables: Table -> fields that are read from it.
        given: Field -> its column (`benchmark.columns`), in the tables that have it.

    Raises:
        UserError: A table cannot be read, `given` names a field or a column that no table has, or two columns may be meant.
    """
    rows_by_table = {path: read_rows(path) for path in tables}
    columns_by_table = {path: {column for row in rows for column in row} for path, rows in rows_by_table.items()}
    for name, column in given.items():
        columns = [columns_by_table[path] for path, fields in tables.items() if name in fields]
        if not columns:
            raise unknown_name(
                "field in benchmark.columns", name, {field for fields in tables.values() for field in fields}
            )
        if column not in set().union(*columns):
            raise unknown_name(f"column for {name} in benchmark.columns", column, set().union(*columns))
    records = {}
    for path, rows in rows_by_table.items():
        named = {name: column for name, column in given.items() if column in columns_by_table[path]}
        found = {name: _column_of(name, rows, path) for name in tables[path] if name not in named}
        records[path] = [Record(row, {**found, **named}) for row in rows]
    return records


def _column_of(name: str, rows: Sequence[Mapping[str, Any]], path: Path) -> str:
    """Return the column of a field: that of its name, in any case."""
    spellings = sorted({column for row in rows for column in row if _folded(column) == _folded(name)})
    if len(spellings) > 1 and not all(name in row for row in rows):
        raise UserError(
            f"{path.name} has columns {' and '.join(map(short_repr, spellings))}, each of which may be {name}. Keep one of them, or "
            f"name it: --set benchmark.columns.{name}=COLUMN."
        )
    return spellings[0] if len(spellings) == 1 else name


def _folded(column: str) -> str:
    return column.casefold().strip().replace(" ", "_")


def require_files(folder: Path, required_names: Sequence[str], layout: str) -> None:
    """Raise if files or folders are missing, listing them and what exists."""
    missing = [name for name in required_names if not (folder / name).exists()]
    if missing:
        entries = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir()) if folder.is_dir() else []
        raise UserError(
            f"{folder} has no {', '.join(missing)}. Expected {layout}; found {', '.join(entries[:20]) or 'nothing'}."
        )
