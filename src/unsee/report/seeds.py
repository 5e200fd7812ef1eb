"""Grouping of run folders into rows of seeds.

Seeds of one row share stage, model or settings, and questions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from unsee.report.read import GOLD, Record, read_run
from unsee.utils.grouping import by_key

_OWN: Final = frozenset({"seed", "out", "engine", "eval", "record", "result"})
"""Parts of run.yaml that may differ between seeds."""
MOST: Final = 3
"""Most settings in a row's name; rows that differ in more are named by folder."""


def grouped(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """Return row name -> run folders. Names show differing settings (`npo retain_weight=1.0`).

    Runs of other weights, of other questions or held against another gold model are rows of their own, named by their folders.
    """
    records = [read_run(folder) for folder in folders]
    stages = by_key((record.stage, record) for record in records)
    known = {stage: _names(stage, stages[stage], GOLD.values()) for stage in GOLD.values() if stage in stages}
    golds = [stage for stage, names in known.items() if len(set(names)) == 1]
    return by_key(
        (name, record.folder)
        for stage, runs in stages.items()
        for name, record in zip(known.get(stage) or _names(stage, runs, golds), runs, strict=True)
    )


def _names(stage: str, records: Sequence[Record], golds: Collection[str]) -> list[str]:
    """Return the row name of each run, beside these gold models of one row each."""
    told = [dict(flat(record.made_by)) for record in records]
    common = [key for key in told[0] if all(key in row for row in told)]
    keys = [key for key in common if any(row[key] != told[0][key] for row in told)]
    hidden = [_identity(record, golds) for record in records]
    if len(set(hidden)) == 1 and not keys:
        return [stage] * len(records)
    if len(set(hidden)) == 1 and len(keys) <= MOST:
        return [f"{stage} {' '.join(f'{short(key, keys)}={row[key]}' for key in keys)}" for row in told]
    kinds = [(one, *(str(row[key]) for key in keys)) for row, one in zip(told, hidden, strict=True)]
    names = _folder_names(records)
    return [f"{stage} run={names[kinds.index(kind)]}" for kind in kinds]


def _identity(record: Record, golds: Collection[str]) -> tuple[str, str, str]:
    """Return what no setting tells: foreign weights, questions, gold model unless a row takes its place (`gold_for`)."""
    replaced = GOLD[record.promise] in golds or GOLD["person"] in golds
    return (
        "" if record.made_by else record.weights,
        record.questions,
        "" if replaced else record.gold,
    )


def _folder_names(records: Sequence[Record]) -> list[str]:
    """Return the last part of each path, with its parent where needed."""
    last = [record.folder.resolve().name for record in records]
    counts = Counter(last)
    return [
        name if counts[name] == 1 else f"{record.folder.resolve().parent.name}/{name}"
        for name, record in zip(last, records, strict=True)
    ]


def flat(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted name and value of every setting that distinguishes rows."""
    for key, value in settings.items():
        if not above and key in _OWN:
            continue
        if isinstance(value, Mapping):
            yield from flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def short(key: str, keys: Sequence[str]) -> str:
    """Return the last part of a dotted name, or all of it if ambiguous."""
    last = key.rpartition(".")[2]
    return key if sum(other.rpartition(".")[2] == last for other in keys) > 1 else last
