"""Grouping and thinning of sequences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def by_key(pairs: Iterable[tuple[K, V]]) -> dict[K, list[V]]:
    """Collect the values of each key, both in the order in which they come.

    >>> by_key([("a", 1), ("b", 2), ("a", 3)])
    {'a': [1, 3], 'b': [2]}
    """
    groups: dict[K, list[V]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


def merged_forms(pairs: Iterable[tuple[K, Iterable[str]]]) -> dict[K, tuple[str, ...]]:
    """Collect the distinct forms of each key, both in the order in which they come.

    >>> merged_forms([("city", ("Oslo",)), ("job", ("cook",)), ("city", ("Bergen", "Oslo"))])
    {'city': ('Oslo', 'Bergen'), 'job': ('cook',)}
    """
    forms: dict[K, dict[str, None]] = {}
    for key, values in pairs:
        forms.setdefault(key, {}).update(dict.fromkeys(values))
    return {key: tuple(values) for key, values in forms.items()}


def evenly(items: Sequence[V], count: int) -> Sequence[V]:
    """Return at most `count` items, evenly spaced over the sequence.

    >>> evenly("abcdef", 3)
    ['a', 'c', 'e']
    """
    return items if len(items) <= count else [items[index * len(items) // count] for index in range(count)]
