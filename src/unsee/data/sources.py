"""Rows of data as people store them: tables, shards, folders that `datasets` has saved, folders of images."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from unsee.api.benchmark import Hub, Place
from unsee.api.lazy import Lazy
from unsee.data.arrow import arrow_rows, fetched_splits, parquet_table, saved_table
from unsee.data.row_store import open_rows
from unsee.data.tables import SUFFIXES, find_table, tables_at
from unsee.errors import UserError, shown, unknown_name
from unsee.utils.grouping import by_key
from unsee.utils.parsing import read_object

IMAGES: Final = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
"""Suffixes of image files in folders without a table."""
SPLITS: Final = {"train": "", "validation": "eval", "valid": "eval", "val": "eval", "test": "eval"}
"""Split in the name of a file or folder -> value of the column split; train rows are judged, too."""
QUESTION: Final = "Who or what is this?"
"""Question about an image in a folder without a table [inferred]."""
INFO: Final = "dataset_info.json"
_STATE: Final = "state.json"
_DICT: Final = "dataset_dict.json"
_METADATA: Final = "metadata"
_LLAMA_FACTORY: Final = {"prompt": "instruction", "query": "input", "response": "output", "images": "images"}
"""Default columns of alpaca data in LLaMA-Factory."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Rows of a data set and where they come from."""

    file: Path
    """Table or folder, for messages."""
    rows: Sequence[dict[str, Any]]
    base: Path
    """Folder of relative image paths."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Column of unsee -> column of the table, where the folder says so itself."""
    notes: tuple[str, ...] = ()
    """What was made up, for the user to see."""


def open_source(place: Place, dataset: str = "") -> Source:
    """Open the rows at a place.

    In this order: a table file; a folder saved by `datasets`; one of LLaMA-Factory, with `dataset` its name there; a folder with
    one table; parquet shards (also in `data/`, as in clones from the hub); image folders with `metadata.*`; image folders.

    Raises:
        UserError: There are no rows, or several tables.
    """
    if isinstance(place, Hub):
        return Source(file=Path(place.id), rows=_all_rows(fetched_splits(place)), base=Path())
    if place.is_file():
        return _table(place)
    if (place / _DICT).is_file() or (place / _STATE).is_file():
        return Source(file=place, rows=_all_rows(_saved_splits(place)), base=place)
    if (entries := _entries(place)) is not None:
        return _of_llama_factory(place, entries, dataset)
    for found in (_shards(place), _with_metadata(place)):
        if found is not None:
            return found
    if not _tables(place) and (images := list(_images(place))):
        note = f"there is no table: every image is asked {QUESTION!r}, and the name of its folder is the answer"
        return Source(file=place, rows=images, base=place, notes=(note,))
    return _table(find_table(place))


def fits(place: Path) -> bool:
    """Tell from file names whether there are rows at a place."""
    if tables_at(place):
        return True
    if not place.is_dir():
        return False
    return any((place / name).is_file() for name in (_DICT, _STATE)) or bool(
        list(place.glob("data/*.parquet")) or list(_metadata(place)) or next(_images(place), None)
    )


def _table(file: Path) -> Source:
    return Source(file=file, rows=_listed(open_rows(file), file), base=file.parent)


def _listed(rows: Sequence[dict[str, Any]], file: Path) -> Sequence[dict[str, Any]]:
    if not rows:
        raise UserError(f"{file} has no rows.")
    return rows


def _tables(place: Path) -> list[Path]:
    return [table for table in tables_at(place) if table.name not in (INFO, _STATE)]


def _saved_splits(place: Path) -> Iterator[tuple[str, Sequence[dict[str, Any]]]]:
    """Yield split and rows of what `save_to_disk` has written."""
    if (place / _STATE).is_file():
        yield "train", arrow_rows(saved_table(place))
        return
    for split in read_object(place / _DICT).get("splits", []):
        yield str(split), arrow_rows(saved_table(place / str(split)))


def _all_rows(splits: Iterator[tuple[str, Sequence[dict[str, Any]]]]) -> Sequence[dict[str, Any]]:
    """Return the rows of all splits, those of held-out splits with `split`."""
    parts = [_marked(rows, SPLITS.get(split, "")) for split, rows in splits]
    if len(parts) == 1:
        return parts[0]
    return [row for part in parts for row in part]


def _marked(rows: Sequence[dict[str, Any]], split: str) -> Sequence[dict[str, Any]]:
    if not split:
        return rows
    return Lazy(len(rows), lambda index: {"split": split, **rows[index]})


def _shards(place: Path) -> Source | None:
    """Return the rows of `data/train-00000-of-00001.parquet` and its like, or None without shards."""
    files = sorted(place.glob("data/*.parquet")) if not _tables(place) else sorted(place.glob("*-of-*.parquet"))
    if not files or len(files) != len(sorted(files[0].parent.glob("*.parquet"))):
        return None
    splits = by_key((file.name.partition("-")[0].removesuffix(".parquet"), file) for file in files)
    rows = _all_rows((split, arrow_rows(parquet_table(found))) for split, found in splits.items())
    return Source(file=files[0].parent, rows=_listed(rows, files[0].parent), base=place)


def _metadata(place: Path) -> list[Path]:
    """Return the tables `metadata.*` beside images, in the folder or in those of its splits."""
    found = [place / f"{_METADATA}{suffix}" for suffix in SUFFIXES]
    found += [place / split / f"{_METADATA}{suffix}" for split in SPLITS for suffix in SUFFIXES]
    return [file for file in found if file.is_file()]


def _with_metadata(place: Path) -> Source | None:
    """Return the rows of `metadata.*`, with image paths from the folder, or None without them."""
    files = _metadata(place)
    if not files or [table for table in _tables(place) if table.stem == "data"]:
        return None
    rows: list[dict[str, Any]] = []
    for file in files:
        here = file.parent.relative_to(place)
        split = SPLITS.get(here.name, "")
        rows += [_moved(row, here, split) for row in open_rows(file)]
    return Source(file=files[0], rows=_listed(rows, files[0]), base=place)


def _moved(row: Mapping[str, Any], folder: Path, split: str) -> dict[str, Any]:
    """Return a metadata row with its image path from the root."""
    name = row.get("file_name")
    moved = {"file_name": str(folder / name)} if isinstance(name, str) and name else {}
    return {**({"split": split} if split else {}), **row, **moved}


def _images(place: Path) -> Iterator[dict[str, Any]]:
    """Yield a row per image of `CLASS/x.png` or `SPLIT/CLASS/x.png`: it is asked for its class."""
    if not place.is_dir():
        return
    for file in sorted(place.rglob("*")):
        parts = file.relative_to(place).parts
        if file.suffix.lower() in IMAGES and 2 <= len(parts) <= 3 and (len(parts) == 2 or parts[0] in SPLITS):
            split = SPLITS.get(parts[0], "") if len(parts) == 3 else ""
            name = parts[-2].replace("_", " ")
            asked = {"question": QUESTION, "answer": name, "entity": parts[-2], "private": {"name": [name]}}
            yield {"image": "/".join(parts), **asked, **({"split": split} if split else {})}


def _entries(place: Path) -> Mapping[str, Any] | None:
    """Return the data sets of LLaMA-Factory's `dataset_info.json`, or None if there are none."""
    file = place / INFO
    if not file.is_file():
        return None
    try:
        values = json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise UserError(f"{file} is not JSON: {error}") from error
    if not isinstance(values, dict):
        return None
    named = {name: entry for name, entry in values.items() if isinstance(entry, dict) and "file_name" in entry}
    return named or None


def _of_llama_factory(place: Path, entries: Mapping[str, Any], dataset: str) -> Source:
    """Return the rows of a data set that `dataset_info.json` describes."""
    name = dataset or next(iter(entries))
    if name not in entries:
        raise unknown_name("data set", name, entries)
    if not dataset and len(entries) > 1:
        raise UserError(
            f"{place / INFO} names {', '.join(map(shown, entries))}; say which: --set benchmark.dataset=NAME."
        )
    entry = entries[name]
    source = _table(place / str(entry["file_name"]))
    talk = entry.get("formatting", "alpaca") == "sharegpt"
    columns = {**({} if talk else _LLAMA_FACTORY), **entry.get("columns", {})}
    names = {"messages": "messages", "images": "images"} | (
        {} if talk else {"prompt": "question", "response": "answer"}
    )
    named = {ours: str(columns[theirs]) for theirs, ours in names.items() if theirs in columns}
    return Source(file=source.file, rows=source.rows, base=place, fields=named)
