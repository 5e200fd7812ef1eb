"""Grouping of run folders into rows of seeds.

Seeds of one row share stage, model or settings, and questions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from unsee.report.read import GOLD, Record, read_run
from unsee.utils.files import distinct
from unsee.utils.grouping import by_key
from unsee.utils.terminal import note_once

_OWN: Final = frozenset({"seed", "out", "engine", "eval", "retention", "record", "result"})
"""Parts of run.yaml that may differ between seeds."""
MOST: Final = 3
"""Most settings in a row's name; rows that differ in more, or in a mapping, are named by folder."""


def folders_by_row(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """Return row name -> run folders, each once. Names show differing settings (`npo retain_weight=1.0`).

    A model that was judged twice counts once, which a note says. Runs that answered with other settings (max_new_tokens,
    backend) are rows of their own, and so are those with other weights, questions or gold model, named by their folders.
    """
    records = [read_run(folder) for folder in distinct(folders)]
    stages = by_key((record.stage, record) for record in records)
    gold_row_names = {stage: _names(stage, stages[stage], GOLD.values()) for stage in GOLD.values() if stage in stages}
    golds = [stage for stage, names in gold_row_names.items() if len(set(names)) == 1]
    rows = by_key(
        ((stage, name), record)
        for stage, runs in stages.items()
        for name, record in zip(gold_row_names.get(stage) or _names(stage, runs, golds), runs, strict=True)
    )
    names = _distinct([name for _, name in rows], [runs[0] for runs in rows.values()])
    return {
        name: [record.folder for record in _different(runs)] for name, runs in zip(names, rows.values(), strict=True)
    }


def _distinct(names: Sequence[str], firsts: Sequence[Record]) -> list[str]:
    """Return the row names with folders where two stages have one, as a cell `npo beta=0.1` and runs of `npo` may."""
    counts = Counter(names)
    folder_names = _folder_names(firsts)
    return [
        name if counts[name] == 1 else f"{name} run={folder}" for name, folder in zip(names, folder_names, strict=True)
    ]


def _different(records: Sequence[Record]) -> list[Record]:
    """Return the runs of a row without those whose model was judged in an earlier one."""
    different: dict[tuple[str, ...], Record] = {}
    for record in records:
        answers = (record.weights or str(record.folder), *(response.text for response in record.responses))
        if (first := different.setdefault(answers, record)) is not record:
            note_once(f"{record.folder} is left out: it has the answers of the same model as {first.folder}.")
    return list(different.values())


def _names(stage: str, records: Sequence[Record], golds: Collection[str]) -> list[str]:
    """Return the row name of each run. `golds`: gold stages with one row each."""
    settings_list = [
        dict(flat(record.made_by)) | {f"eval.{name}": setting for name, setting in record.decoding.items()}
        for record in records
    ]
    common_keys = [key for key in settings_list[0] if all(key in settings for settings in settings_list)]
    keys = [key for key in common_keys if any(settings[key] != settings_list[0][key] for settings in settings_list)]
    identities = [_identity(record, golds) for record in records]
    if len(set(identities)) == 1 and not keys:
        return [stage] * len(records)
    has_mapping = any(isinstance(settings[key], Mapping) for settings in settings_list for key in keys)
    if len(set(identities)) == 1 and len(keys) <= MOST and not has_mapping:
        return [
            f"{stage} {' '.join(f'{short(key, keys)}={settings[key]}' for key in keys)}" for settings in settings_list
        ]
    kinds = [
        (identity, *(str(settings[key]) for key in keys))
        for settings, identity in zip(settings_list, identities, strict=True)
    ]
    names = _folder_names(records)
    return [f"{stage} run={names[kinds.index(kind)]}" for kind in kinds]


def _identity(record: Record, golds: Collection[str]) -> tuple[str, str, str]:
    """Return what the settings do not record: foreign weights, questions, gold model.

    The gold model is empty if a row replaces it (`gold_for`).
    """
    has_gold_row = GOLD[record.promise] in golds or GOLD["person"] in golds
    return (
        "" if record.made_by else record.weights,
        record.questions,
        "" if has_gold_row else record.gold,
    )


def _folder_names(records: Sequence[Record]) -> list[str]:
    """Return the last part of each path, with its parent where needed."""
    folder_names = [record.folder.resolve().name for record in records]
    counts = Counter(folder_names)
    return [
        name if counts[name] == 1 else f"{record.folder.resolve().parent.name}/{name}"
        for name, record in zip(folder_names, records, strict=True)
    ]


def flat(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield dotted name and value of every setting that distinguishes rows.

    A mapping below a part, such as `method.substitutes`, is one value, for two of them may have no entry in common.
    """
    for key, value in settings.items():
        if key in _OWN:
            continue
        if isinstance(value, Mapping):
            yield from ((f"{key}.{name}", setting) for name, setting in value.items())
        else:
            yield key, value


def short(key: str, keys: Sequence[str]) -> str:
    """Return the last part of a dotted name, or all of it if ambiguous."""
    last_part = key.rpartition(".")[2]
    return key if sum(other.rpartition(".")[2] == last_part for other in keys) > 1 else last_part
