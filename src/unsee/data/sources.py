"""Rows of data in common layouts: tables, shards, `datasets` folders, image folders."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Final

from unsee.api.benchmark import Hub, Place
from unsee.api.lazy import Lazy, concatenated
from unsee.data.arrow import arrow_rows, fetched_splits, parquet_table, require_all_shards, saved_table, shard
from unsee.data.layouts import OTHER_NAMES
from unsee.data.records import Record, named_table, named_tables
from unsee.data.row_store import open_rows
from unsee.data.tables import IMAGES, SUFFIXES, file_at, find_table, tables_at
from unsee.errors import UserError, first_names, short_repr, unknown_name
from unsee.utils.grouping import by_key
from unsee.utils.parsing import is_empty, parse_json, read_object, read_text

Rows = Sequence[dict[str, Any]]

TRAINED: Final = ("train", "training")
"""Names of splits that are trained on, and judged, too."""
HELD_OUT: Final = ("eval", "evaluation", "test", "testing", "validation", "valid", "val", "dev")
"""Names of splits that are only judged."""
QUESTION: Final = "Who or what is this?"
"""Question about an image in a folder without a table [inferred]."""
INFO: Final = "dataset_info.json"
_OTHER_TABLES: Final = (".tsv", ".xlsx", ".xls", ".ods", ".gz", ".zip")
"""Suffixes of files that may hold a table, none of which is read."""
_OTHER_IMAGES: Final = (".heic", ".heif", ".avif", ".jfif", ".jpe", ".jp2", ".jxl", ".dng", ".svg")
"""Suffixes of image files that are not read."""
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
    rows: Rows
    base: Path
    """Folder of relative image paths."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Column of unsee -> column of the table, where the folder itself gives it."""
    notes: tuple[str, ...] = ()
    """Notes on generated questions and answers, shown to the user."""


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
    for source in (_shards(place), _with_metadata(place)):
        if source is not None:
            return source
    if not _tables(place) and (images := list(_images(place))):
        note = f"there is no table: every image is asked {QUESTION!r}, and the name of its folder is the answer"
        return Source(file=place, rows=images, base=place, notes=(note, *_unread_tables(place), *_unread_images(place)))
    return _table(find_table(place))


def split_of(name: str, *, alone: bool = False) -> str:
    """Return the cell of column split for rows of a split: empty for both uses, or `eval`.

    A split that is alone in its data may have any other name.

    >>> split_of("train_sft"), split_of("val2017")
    ('', 'eval')

    Raises:
        UserError: The name is of neither kind, or of both, so that it is unclear whether its rows may be trained on.
    """
    words = set(re.findall("[a-z]+", name.casefold()))
    is_trained, is_held_out = not words.isdisjoint(TRAINED), not words.isdisjoint(HELD_OUT)
    if is_trained != is_held_out:
        return "" if is_trained else "eval"
    if alone and not is_trained:
        return ""
    raise UserError(
        f"{unknown_name('split', name, (*TRAINED, *HELD_OUT))} Rename it, or give the one file or folder that is meant."
    )


def in_split(row: Mapping[str, Any], split: str) -> dict[str, Any]:
    """Return a row of a split, with `split` in its column unless the row says its own."""
    return {**row, "split": split} if split and is_empty(row.get("split")) else dict(row)


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
    return Source(file=file, rows=_nonempty_rows(open_rows(file), file), base=file.parent)


def _nonempty_rows(rows: Rows, file: Path) -> Rows:
    if not rows:
        raise UserError(f"{file} has no rows.")
    return rows


def _tables(folder: Path) -> list[Path]:
    return [table for table in tables_at(folder) if table.name not in (INFO, _STATE)]


def _saved_splits(folder: Path) -> Iterator[tuple[str, Rows]]:
    """Yield split and rows of a data set written by `save_to_disk`."""
    if (folder / _STATE).is_file():
        yield "train", arrow_rows(saved_table(folder), folder)
        return
    for split in Record(read_object(folder / _DICT), prefix=f"{folder / _DICT}: ").strings("splits"):
        yield split, arrow_rows(saved_table(folder / split), folder / split)


def _all_rows(splits: Iterator[tuple[str, Rows]]) -> Rows:
    """Return the rows of all splits, those of held-out splits with `split`."""
    named_splits = list(splits)
    return concatenated(
        [_with_split(rows, split_of(split, alone=len(named_splits) == 1)) for split, rows in named_splits]
    )


def _with_split(rows: Rows, split: str) -> Rows:
    return _each(rows, lambda row: in_split(row, split)) if split else rows


def _each(rows: Rows, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Rows:
    """Return the rows changed: a list if they are one, else on access."""
    if isinstance(rows, list):
        return [change(row) for row in rows]
    return Lazy(len(rows), lambda index: change(rows[index]))


def _shards(root: Path) -> Source | None:
    """Return the rows of shards like `data/train-00000-of-00001.parquet`, or None without any."""
    files = sorted(root.glob("data/*.parquet")) if not _tables(root) else sorted(root.glob("*-of-*.parquet"))
    if not files or len(files) != len(list(files[0].parent.glob("*.parquet"))):
        return None
    folder = files[0].parent
    splits = by_key(zip(_split_names(files), files, strict=True))
    for shard_files in splits.values():
        require_all_shards(folder, [match for file in shard_files if (match := shard(file))])
    rows = _all_rows((split, arrow_rows(parquet_table(shard_files), folder)) for split, shard_files in splits.items())
    return Source(file=folder, rows=_nonempty_rows(rows, folder), base=root)


def _split_names(files: Sequence[Path]) -> list[str]:
    """Return the split of each file.

    It is train for all if no name is a shard's or a split's, as of `part-0.parquet`.
    """
    shards = [shard(file) for file in files]
    names = [match["split"] if match else file.stem for match, file in zip(shards, files, strict=True)]
    has_split_names = any(shards) or any(_is_split(name) for name in names)
    return names if has_split_names else [TRAINED[0]] * len(names)


def _is_split(name: str) -> bool:
    try:
        split_of(name)
    except UserError:
        return False
    return True


def _metadata(root: Path, *, everywhere: bool = False) -> list[Path]:
    """Return the tables `metadata.*` beside images.

    They are looked for in the folder and those of its splits, or `everywhere` in it.
    """
    entries = root.iterdir() if root.is_dir() else ()
    folders = sorted(path for path in entries if (everywhere or _is_split(path.name)) and path.is_dir())
    folders.sort(key=lambda folder: folder.name.casefold() not in TRAINED)
    return [table for folder in (root, *folders) for table in named_tables(folder, _METADATA)]


def _with_metadata(root: Path) -> Source | None:
    """Return the rows of `metadata.*`, with image paths from the folder, or None without them."""
    files = _metadata(root)
    if not files or [table for table in _tables(root) if table.stem == "data"]:
        return None
    if any(file.parent != root for file in files):  # then other folders with such a table are splits, too
        files = _metadata(root, everywhere=True)
    for folder in {file.parent: None for file in files}:
        named_table(folder, _METADATA)  # several would be rows that count twice
    parts = [_with_root_paths(open_rows(file), root, file.parent.relative_to(root)) for file in files]
    if files[0].parent == root:
        _require_others(files, parts)
    return Source(file=files[0], rows=_nonempty_rows(concatenated(parts), files[0]), base=root)


def _require_others(files: Sequence[Path], parts: Sequence[Rows]) -> None:
    """Raise if the tables of splits name a picture that the table above them names, too: its rows would count twice."""
    shown = {PurePath(row["file_name"]) for row in parts[0] if isinstance(row.get("file_name"), str)}
    for file, rows in zip(files[1:], parts[1:], strict=True):
        names = (row.get("file_name") for row in rows)
        if twice := next((name for name in names if isinstance(name, str) and PurePath(name) in shown), ""):
            raise UserError(f"{files[0]} and {file} both have rows about {twice}; keep one of them.")


def _with_root_paths(rows: Rows, root: Path, folder: Path) -> Rows:
    """Return metadata rows of a folder with their image paths from the root.

    A column `file_name` is relative to the folder; others may be so, too, or to the root.
    """
    if not folder.name:
        return rows
    split, columns = split_of(folder.name), ("image", *OTHER_NAMES["image"])

    def moved(row: dict[str, Any]) -> dict[str, Any]:
        paths = {
            column: str(folder / path)
            for column, path in row.items()
            if column.casefold() in columns
            and isinstance(path, str)
            and path
            and (column == "file_name" or _is_below(root / folder, path))
        }
        return in_split({**row, **paths}, split)

    return _each(rows, moved)


def _is_below(folder: Path, path: str) -> bool:
    """Tell whether a relative path names a file of the folder; data: addresses do not."""
    try:
        return not path.startswith("data:") and file_at(folder, path) is not None
    except UserError:  # no file can be called so
        return False


def _images(root: Path) -> Iterator[dict[str, Any]]:
    """Yield a row per image of `CLASS/x.png` or `SPLIT/CLASS/x.png`, which asks for the class."""
    for parts in _image_places(root):
        if _is_asked(parts):
            name = parts[-2].replace("_", " ")
            cells = {"question": QUESTION, "answer": name, "entity": parts[-2], "private": {"name": [name]}}
            yield in_split({"image": "/".join(parts), **cells}, split_of(parts[0]) if len(parts) == 3 else "")


def _unread_tables(root: Path) -> Iterator[str]:
    """Yield a note on the files of a folder that may be tables in other formats, or lie deeper."""
    entries = sorted(path for path in root.iterdir() if not path.name.startswith("."))
    files = [file for file in entries if file.suffix.lower() in _OTHER_TABLES and file.is_file()]
    files += [file for folder in entries if folder.is_dir() for file in tables_at(folder)]
    if files:
        names = first_names([file.relative_to(root).as_posix() for file in files])
        yield f"nothing is read from {names}; a table is one of {', '.join(SUFFIXES)}, in the folder itself"


def _unread_images(root: Path) -> Iterator[str]:
    """Yield notes on the folders whose images are no rows, and on images in formats that are not read."""
    folders = dict.fromkeys("/".join(parts[:-1]) or "." for parts in _image_places(root) if not _is_asked(parts))
    if folders:
        yield f"images are read from CLASS/ and SPLIT/CLASS/ (splits {', '.join((*TRAINED, *HELD_OUT))}), not from {first_names([*folders])}"
    files = ["/".join(parts) for parts in _image_places(root, _OTHER_IMAGES) if _is_asked(parts)]
    if files:
        yield f"images in other formats are not read: {first_names(files)}; save them as PNG or JPEG"


def _image_places(root: Path, suffixes: Sequence[str] = IMAGES) -> Iterator[tuple[str, ...]]:
    """Yield the parts of the paths of all image files below a folder, but for hidden ones."""
    for file in sorted(root.rglob("*")) if root.is_dir() else ():
        parts = file.relative_to(root).parts
        if file.suffix.lower() in suffixes and not any(part.startswith(".") for part in parts):
            yield parts


def _is_asked(parts: tuple[str, ...]) -> bool:
    return len(parts) == 2 or (len(parts) == 3 and _is_split(parts[0]))


def _entries(folder: Path) -> Mapping[str, Any] | None:
    """Return the data sets of LLaMA-Factory's `dataset_info.json`, or None if there are none."""
    file = folder / INFO
    if not file.is_file():
        return None
    values = parse_json(read_text(file), str(file))
    if not isinstance(values, dict):
        return None
    entries = {name: entry for name, entry in values.items() if isinstance(entry, dict) and "file_name" in entry}
    return entries or None


def _of_llama_factory(folder: Path, entries: Mapping[str, Any], dataset: str) -> Source:
    """Return the rows of a data set that `dataset_info.json` describes."""
    name = dataset or next(iter(entries))
    if name not in entries:
        raise unknown_name("data set", name, entries)
    if not dataset and len(entries) > 1:
        raise UserError(
            f"{folder / INFO} names {', '.join(map(short_repr, entries))}; say which: --set benchmark.dataset=NAME."
        )
    entry = Record(entries[name], prefix=f"{folder / INFO}: {name}.")
    is_conversation = entry.optional("formatting") == "sharegpt"
    own_columns = {key: column for key, column in entry.mapping("columns").items() if not is_empty(column)}
    columns = {**({} if is_conversation else _LLAMA_FACTORY), **own_columns}
    source = _table(folder / entry.text("file_name"))
    rows = (
        source.rows
        if is_conversation
        else _each(source.rows, lambda row: _join_query(row, columns["prompt"], columns["query"]))
    )
    our_columns = {"messages": "messages", "images": "images"} | (
        {} if is_conversation else {"prompt": "question", "response": "answer"}
    )
    fields = {our_column: str(columns[key]) for key, our_column in our_columns.items() if key in columns}
    return Source(file=source.file, rows=rows, base=folder, fields=fields)


def _join_query(row: Mapping[str, Any], prompt: str, query: str) -> dict[str, Any]:
    """Return an alpaca row with instruction and input joined as LLaMA-Factory does."""
    if query not in row:
        return dict(row)
    texts = [str(row[column]) for column in (prompt, query) if not is_empty(row.get(column))]
    return {**{name: cell for name, cell in row.items() if name != query}, prompt: "\n".join(texts)}
