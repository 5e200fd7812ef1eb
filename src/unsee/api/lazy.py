"""Lazy sequences, whose items are created on access and not cached."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import TypeVar, overload

T = TypeVar("T")


class Lazy(Sequence[T]):
    """Sequence of `count` items, created by `make(index)` on every access."""

    def __init__(self, count: int, make: Callable[[int], T]) -> None:
        """Store the constructor, and create no item yet."""
        self._count = count
        self._make = make

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Lazy[T]: ...
    def __getitem__(self, index: int | slice) -> T | Lazy[T]:
        if isinstance(index, slice):
            indices = range(self._count)[index]
            return Lazy(len(indices), lambda position: self._make(indices[position]))
        return self._make(range(self._count)[index])

    def __iter__(self) -> Iterator[T]:
        return map(self._make, range(self._count))


def chosen(items: Sequence[T], indices: Sequence[int]) -> Sequence[T]:
    """Return the items at these indices: a list of a list, else a lazy sequence."""
    if isinstance(items, list):
        return [items[index] for index in indices]
    return Lazy(len(indices), lambda index: items[indices[index]])


def concatenated(parts: Sequence[Sequence[T]]) -> Sequence[T]:
    """Return a lazy concatenation of several sequences."""
    nonempty = [part for part in parts if len(part)]
    if len(nonempty) == 1:
        return nonempty[0]
    if not any(isinstance(part, Lazy) for part in nonempty):
        return [item for part in nonempty for item in part]
    starts = [0, *accumulate(len(part) for part in nonempty)]

    def item(index: int) -> T:
        part_index = bisect_right(starts, index) - 1
        return nonempty[part_index][index - starts[part_index]]

    return Lazy(starts[-1], item)
