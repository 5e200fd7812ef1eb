"""Which run folders are seeds of one row of the report: those of one stage with equal settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from unsee.report.read import Record, read_run

_OWN: Final = frozenset({"seed", "out", "engine", "eval", "record", "result"})
"""Parts of run.yaml that may differ between the seeds of one row."""
_MOST: Final = 3
"""Settings that a row's name may have; rows that differ in more are told apart by their folders."""


def grouped(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """Return row name -> run folders: the stage, and behind it what its runs have set differently (`npo retain_weight=1.0`)."""
    stages: dict[str, list[Record]] = {}
    for folder in folders:
        record = read_run(folder)
        stages.setdefault(record.stage, []).append(record)
    groups: dict[str, list[Path]] = {}
    for stage, records in stages.items():
        for name, record in zip(_names(stage, records), records, strict=True):
            groups.setdefault(name, []).append(record.folder)
    return groups


def _names(stage: str, records: Sequence[Record]) -> list[str]:
    """Return each run's row name."""
    flat = [dict(_flat(record.settings)) for record in records]
    common = [key for key in flat[0] if all(key in row for row in flat)]
    keys = [key for key in common if any(row[key] != flat[0][key] for row in flat)]
    if not keys:
        return [stage] * len(records)
    if len(keys) <= _MOST:
        return [f"{stage} {' '.join(f'{_short(key, keys)}={row[key]}' for key in keys)}" for row in flat]
    kinds = [tuple(str(row[key]) for key in keys) for row in flat]
    return [f"{stage} run={records[kinds.index(kind)].folder.name}" for kind in kinds]


def _flat(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted name and value of every setting that makes a row."""
    for key, value in settings.items():
        if not above and key in _OWN:
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _short(key: str, keys: Sequence[str]) -> str:
    """Return the last part of a dotted name, or all of it if another setting ends alike."""
    last = key.rpartition(".")[2]
    return key if sum(other.rpartition(".")[2] == last for other in keys) > 1 else last
