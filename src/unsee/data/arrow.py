"""Arrow tables of named configurations, on disk or on the hub, with lazily decoded images.

A configuration is a folder of parquet shards, a data set saved by the `datasets` library, one parquet file, or a configuration
of a data set on the hub. Up to `IN_MEMORY` bytes of parquet are read; more is converted once by `datasets` (into its own cache)
and memory-mapped from there, for rows of a parquet file cannot be read one by one.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from unsee.api.benchmark import Hub, Place
from unsee.api.lazy import Lazy
from unsee.api.pictures import decode_image
from unsee.data.tables import is_file, table_rows, undecodable
from unsee.errors import UserError, short_repr
from unsee.utils.parsing import as_text, require_fetched

if TYPE_CHECKING:
    import pyarrow
    from PIL import Image

IN_MEMORY: Final = 8 * 2**20
"""Largest parquet size in bytes that is read into memory instead of mapped."""
ROWS_AT_ONCE: Final = 256
"""Rows held as Python objects at a time."""

_SHARD: Final = re.compile(r"(?P<split>.+?)-(?P<index>\d{5})-of-(?P<count>\d{5})(-[0-9a-f]{16})?\.parquet")
"""Name of a shard; older versions of `datasets` end it with a hash."""
_WAY_OUT: Final = "git clone https://huggingface.co/datasets/{id} (with git-lfs), or `hf download --repo-type dataset {id} --local-dir DIR`"


@dataclass(frozen=True, eq=False)
class ArrowImage:
    """Image in a table cell: encoded bytes, a struct with a path, or an item of a list."""

    column: Any
    """Chunked array with the cell."""
    row: int
    index: int | None = None
    """Index in the list, if the cell is one."""
    folder: Path | None = None
    """Base of paths without bytes."""

    @cached_property
    def key(self) -> str:
        """SHA-256 of the encoded bytes."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def data(self) -> bytes:
        """Encoded bytes, or empty if there are none."""
        cell = self.column[self.row]
        value = (cell if self.index is None else cell.values[self.index]).as_py()
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, str):
            file = (self.folder or Path()) / value
            return file.read_bytes() if is_file(file) else b""
        return value if isinstance(value, bytes) else b""

    def load(self) -> Image.Image:
        """Decode to RGB. Transparency is laid on white."""
        return decode_image(io.BytesIO(self.data))

    def fault(self) -> str:
        """Return why the image cannot be used, or empty if it decodes in full."""
        return undecodable(io.BytesIO(self.data)) if self.data else "is missing"


@dataclass(frozen=True, eq=False)
class ArrowTable:
    """Rows of one configuration."""

    name: str
    table: pyarrow.Table
    folder: Path | None = None
    """Base of relative paths."""

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def columns(self) -> list[str]:
        """Column names."""
        return list(self.table.column_names)

    def require(self, *columns: str) -> None:
        """Raise if one of the columns is missing."""
        missing = [column for column in columns if column not in self.columns]
        if missing:
            raise UserError(
                f"{self.name} has no column {', '.join(map(repr, missing))}. "
                f"It needs {', '.join(columns)}; it has {', '.join(self.columns)}."
            )

    def records(self, *columns: str) -> Iterator[dict[str, Any]]:
        """Yield the rows as mappings of the requested columns that exist, a few at a time."""
        selection = self.table.select([column for column in columns if column in self.columns])
        for batch in selection.to_batches(max_chunksize=ROWS_AT_ONCE):
            yield from batch.to_pylist()

    def where(self, row: int) -> str:
        """Return the name of a row for messages, counted from 1."""
        return f"{self.name} row {row + 1}"

    def images(self, row: int, column: str = "image") -> list[ArrowImage]:
        """Return the images in a cell, undecoded: none if null, several if a list."""
        import pyarrow

        cells = self.table.column(column)
        arrow_type = cells.type
        if not cells[row].is_valid:
            return []
        if pyarrow.types.is_list(arrow_type) or pyarrow.types.is_large_list(arrow_type):
            return [ArrowImage(cells, row, index, self.folder) for index in range(len(cells[row]))]
        return [ArrowImage(cells, row, None, self.folder)]

    def image(self, row: int) -> ArrowImage:
        """Return the first image of a row, or raise if there is none."""
        images = self.images(row)
        if not images:
            raise UserError("the image is empty.")
        return images[0]

    def names(self, column: str = "ID") -> list[str]:
        """Return a column of distinct texts. Integers count as text."""
        self.require(column)
        names = []
        for row, cells in enumerate(self.records(column)):
            name = as_text(cells[column])
            if name is None or not (name or isinstance(cells[column], str)):
                raise UserError(f"{self.where(row)}: {column} must be text, got {short_repr(cells[column])}.")
            names.append(name)
        if duplicates := sorted(name for name, count in Counter(names).items() if count > 1):
            raise UserError(f"{self.name}: {column} {', '.join(duplicates[:10])} occurs more than once.")
        return names


class DatasetFolder:
    """Collection of named configurations: a cloned folder, or a data set on the hub."""

    def __init__(self, place: Place | str) -> None:
        """Store the location. Nothing is opened yet."""
        self.place = Path(place) if isinstance(place, str) else place
        self.warnings: list[str] = []

    def has(self, *spellings: str) -> bool:
        """Tell whether a configuration exists under one of its spellings.

        On the hub, download problems show only later.
        """
        return isinstance(self.place, Hub) or _config_path(self.place, spellings) is not None

    def rows(self, *spellings: str, published: int | None = None) -> ArrowTable:
        """Open a configuration. Another number of rows than the published one is a warning.

        Raises:
            UserError: It is missing or incomplete; the message lists what was found.
        """
        rows = self._rows(spellings)
        if published is not None and len(rows) != published:
            self.warnings.append(f"{rows.name} has {len(rows)} rows; the published one has {published}.")
        return rows

    def _rows(self, spellings: Sequence[str]) -> ArrowTable:
        if isinstance(self.place, Hub):
            name = spellings[0]
            rows = _load_from_hub(self.place, f"{name} of {self.place}", name, split="train")
            return ArrowTable(name, rows.data.table)
        path = _config_path(self.place, spellings)
        if path is None:
            entries = (
                ", ".join(sorted(entry.name for entry in self.place.iterdir())) if self.place.is_dir() else "no folder"
            )
            raise UserError(
                f"{self.place} has no {spellings[0]}: expected a folder {spellings[0]}/ with train-*.parquet. "
                f"There is: {entries or 'nothing'}."
            )
        table = _open_table(path, self.warnings)
        rows = ArrowTable(path.name.removesuffix(".parquet"), table, self.place)
        if not len(rows):
            raise UserError(f"{path} has no rows.")
        return rows


def peek(root: Path, *spellings: str) -> set[str]:
    """Return the column names in one file's footer of a local configuration, else none."""
    path = _config_path(root, spellings) if root.is_dir() else None
    if path is None:
        return set()
    import pyarrow
    import pyarrow.parquet

    files = [path] if path.is_file() else sorted([*path.glob("*.parquet"), *path.glob("train/*.parquet")])
    for file in files[:1]:
        require_fetched(file)
        try:
            return set(pyarrow.parquet.read_schema(file).names)
        except (pyarrow.ArrowException, OSError):
            return set()
    info_files = [*path.glob("dataset_info.json"), *path.glob("train/dataset_info.json")]
    return set(_features(info_files[0])) if info_files else set()


def _features(file: Path) -> list[str]:
    try:
        return list(json.loads(file.read_text(encoding="utf-8"))["features"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def _config_path(root: Path, spellings: Sequence[str]) -> Path | None:
    """Return the folder or the one parquet file of a configuration."""
    for name in spellings:
        for path in (root / name, root / f"{name}.parquet"):
            if path.is_dir() or path.is_file():
                return path
    return None


def _open_table(path: Path, warnings: list[str]) -> pyarrow.Table:
    if path.is_file():
        return parquet_table([path])
    for folder in (path, path / "train"):
        if (folder / "state.json").is_file() or (folder / "dataset_info.json").is_file():
            return saved_table(folder)
    direct, nested = sorted(path.glob("*.parquet")), sorted((path / "train").glob("*.parquet"))
    if direct and nested:
        raise UserError(f"{path} holds parquet files both beside and inside train/; keep one of them.")
    if not direct and not nested:
        entries = ", ".join(sorted(entry.name for entry in path.iterdir())) or "nothing"
        raise UserError(f"{path} has no shard: expected train-*.parquet or train/*.parquet, found {entries}.")
    return parquet_table(nested or _shards(path, direct, warnings))


def _shards(folder: Path, files: Sequence[Path], warnings: list[str]) -> list[Path]:
    """Return all shards of the split train, or raise if one is missing."""
    shards = [(file, match) for file in files if (match := shard(file))]
    if not shards:
        return list(files)
    splits = {match["split"] for _, match in shards}
    if "train" not in splits:
        raise UserError(
            f"{folder} has split {', '.join(sorted(splits))}, but no split train (train-*.parquet); fetch the current revision."
        )
    if len(splits) > 1:
        warnings.append(
            f"{folder.name} also has split {', '.join(sorted(splits - {'train'}))}, an older revision's; it is not read."
        )
    train_shards = [(file, match) for file, match in shards if match["split"] == "train"]
    require_all_shards(folder, [match for _, match in train_shards])
    return [file for file, _ in train_shards]


def shard(file: Path) -> re.Match[str] | None:
    """Return `split`, `index` and `count` in the name of a shard, or None for another file."""
    return _SHARD.fullmatch(file.name)


def require_all_shards(folder: Path, shards: Sequence[re.Match[str]]) -> None:
    """Raise unless the shards of a split (possibly none) are all there, of one revision."""
    counts = sorted({int(match["count"]) for match in shards})
    indices = Counter(int(match["index"]) for match in shards)
    if len(counts) > 1:
        raise UserError(f"{folder} mixes shards of {' and of '.join(map(str, counts))}; fetch it anew.")
    if missing := sorted(set(range(max(counts, default=0))) - indices.keys()):
        raise UserError(f"{folder} lacks shard {', '.join(f'{index:05}' for index in missing)}; fetch it anew.")
    if duplicates := [index for index, times in indices.items() if times > 1]:
        raise UserError(f"{folder} has shard {', '.join(f'{index:05}' for index in duplicates)} twice; fetch it anew.")


def parquet_table(files: Sequence[Path]) -> pyarrow.Table:
    """Return the rows of parquet files: in memory if small, else memory-mapped."""
    import pyarrow
    import pyarrow.parquet

    for file in files:
        require_fetched(file)
    try:
        for file in files:
            pyarrow.parquet.read_schema(file)
        if sum(file.stat().st_size for file in files) <= IN_MEMORY:
            return pyarrow.concat_tables([pyarrow.parquet.read_table(file) for file in files])
        return _mapped_table(files)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(
            f"{files[0] if len(files) == 1 else files[0].parent} is no readable Parquet: {error}"
        ) from error


def _mapped_table(files: Sequence[Path]) -> pyarrow.Table:
    """Return the rows as memory-mapped Arrow, cached by `datasets`."""
    import datasets
    from datasets.exceptions import DatasetGenerationError

    try:
        return datasets.Dataset.from_parquet([str(file) for file in files]).data.table
    except DatasetGenerationError as error:
        raise UserError(f"{files[0].parent} is no readable Parquet: {error.__cause__ or error}") from error


def saved_table(folder: Path) -> pyarrow.Table:
    """Return the rows of a data set written by `Dataset.save_to_disk`."""
    import datasets
    import pyarrow

    for file in sorted([*folder.glob("*.json"), *folder.glob("*.arrow")]):
        require_fetched(file)
    try:
        return datasets.load_from_disk(str(folder)).data.table
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} is no data set that `datasets` has saved: {error}") from error


def arrow_rows(table: pyarrow.Table, name: object) -> Sequence[dict[str, Any]]:
    """Return the rows of a table: a list if they are small, else read on access."""
    if table.nbytes > IN_MEMORY:
        return lazy_rows(table, name)
    return table_rows(table, name)


def lazy_rows(table: pyarrow.Table, name: object) -> Sequence[dict[str, Any]]:
    """Return the rows of a table, read on access."""
    return Lazy(table.num_rows, lambda index: table_rows(table.slice(index, 1), name)[0])


def fetched_splits(place: Hub) -> Iterator[tuple[str, Sequence[dict[str, Any]]]]:
    """Yield split and rows of a data set on the hub, through the cache of `datasets`."""
    for split, rows in _load_from_hub(place, str(place)).items():
        yield str(split), arrow_rows(rows.data.table, place)


def _load_from_hub(place: Hub, label: str, *config: str, **options: str) -> Any:
    """Load a data set with `datasets`, from the hub or its cache."""
    import datasets

    try:
        return datasets.load_dataset(place.id, *config, **options)
    except (OSError, ValueError) as error:
        raise UserError(
            f"Cannot fetch {label} from the hub (and there is no folder of that name here): {error}. "
            f"Without network, fetch it elsewhere and give the folder: {_WAY_OUT.format(id=place.id)}."
        ) from error
