"""Tables larger than memory, read from disk row by row on access."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, Final

from unsee.api.lazy import Lazy
from unsee.data.arrow import lazy_rows, parquet_table
from unsee.data.tables import csv_rows, read_rows, reading
from unsee.errors import UserError, short_repr
from unsee.utils.parsing import parse_json, require_fetched

IN_MEMORY: Final = 4 * 2**20
"""Largest size in bytes of a table that is read into memory."""

Row = dict[str, Any]


def open_rows(path: Path) -> Sequence[Row]:
    """Return the rows of a table in file order, in memory if small, else read on access.

    A JSON list is read whole once and then put aside, line by line, in a temporary file; so is CSV, without being read whole.
    """
    if not path.is_file() or path.stat().st_size <= IN_MEMORY:
        return read_rows(path)
    with reading(path):
        require_fetched(path)
        if path.suffix.lower() == ".parquet":
            return lazy_rows(parquet_table([path]), path)
        if path.suffix.lower() == ".jsonl":
            return _index_lines(path)
        return _spool_rows(csv_rows(path) if path.suffix.lower() == ".csv" else read_rows(path))


def _index_lines(path: Path) -> Sequence[Row]:
    """Return the lines of a JSON-lines file as lazily parsed rows, each validated now."""
    starts, offset = array("Q"), 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if text.strip():
                _require_row(text, path.name, number)
                starts.append(offset + len(line) - len(text))
            offset += len(line)
        return _at(file, starts, offset)


def _require_row(line: bytes, name: str, number: int) -> None:
    row = parse_json(line, f"{name} line {number}")
    if not isinstance(row, dict):
        raise UserError(f"{name} line {number} must be an object with named columns, got {short_repr(row)}.")


def _spool_rows(rows: Iterable[Mapping[str, Any]]) -> Sequence[Row]:
    """Write rows to a temporary file that disappears with the process."""
    starts, offset = array("Q"), 0
    with tempfile.TemporaryFile("w+b") as file:
        for row in rows:
            starts.append(offset)
            offset += file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        file.flush()
        return _at(file, starts, offset)


class _Handle:
    """Open file (possibly unlinked), closed when its last user is gone."""

    def __init__(self, file: BinaryIO) -> None:
        self.number = os.dup(file.fileno())
        self.lock = Lock()

    def read(self, start: int, stop: int) -> bytes:
        """Return these bytes. Without `pread` (Windows) threads take turns."""
        if "pread" in vars(os):
            return os.pread(self.number, stop - start, start)
        with self.lock:
            os.lseek(self.number, start, os.SEEK_SET)
            return os.read(self.number, stop - start)

    def __del__(self) -> None:
        os.close(self.number)


def _at(file: BinaryIO, starts: array[int], end: int) -> Sequence[Row]:
    """Return the rows at these byte offsets, thread-safe."""
    handle = _Handle(file)

    def row(index: int) -> Row:
        stop = starts[index + 1] if index + 1 < len(starts) else end
        cells: Row = json.loads(handle.read(starts[index], stop))
        return cells

    return Lazy(len(starts), row)


def digest64(text: str) -> int:
    """Return an eight-byte hash of the text, to compare many texts in little memory."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def repeats(digests: array[int]) -> list[tuple[int, int]]:
    """Return (first index, later index) of repeated values, by later index.

    >>> repeats(array("Q", [5, 7, 5, 5]))
    [(0, 2), (0, 3)]
    """
    order = array("Q", sorted(range(len(digests)), key=digests.__getitem__))
    pairs, first = [], 0
    for rank, index in enumerate(order):
        first = index if rank == 0 or digests[index] != digests[order[rank - 1]] else first
        if index != first:
            pairs.append((first, index))
    return sorted(pairs, key=lambda pair: pair[1])


def sorted_digests(digests: array[int]) -> array[int]:
    """Return the values sorted, for `contains`."""
    return array("Q", sorted(digests))


def contains(values: array[int], value: int) -> bool:
    """Tell whether sorted values contain a value.

    >>> contains(array("Q", [2, 5]), 5), contains(array("Q", [2, 5]), 6)
    (True, False)
    """
    index = bisect_left(values, value)
    return index < len(values) and values[index] == value


def ambiguous(keys: array[int], values: array[int]) -> set[int]:
    """Return the keys that occur with more than one value.

    >>> sorted(ambiguous(array("Q", [1, 1, 2, 2]), array("Q", [7, 7, 7, 8])))
    [2]
    """
    ambiguous_keys = set()
    order = array("Q", sorted(range(len(keys)), key=keys.__getitem__))
    for index, next_index in pairwise(order):
        if keys[index] == keys[next_index] and values[index] != values[next_index]:
            ambiguous_keys.add(keys[index])
    return ambiguous_keys
