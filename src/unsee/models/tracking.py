"""Summary of a run for trackers, beside its losses: how it was made and what was measured. It names nobody."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, Final

from unsee import config
from unsee.api import Score
from unsee.config import RECORD
from unsee.utils import trackers
from unsee.utils.nameless import nameless

_ODD: Final = re.compile(r"[^\w.\- /]")
"""Characters that MLflow does not take in names."""


def run_entries(out: Path) -> dict[str, Any]:
    """Return the resolved run in a folder as `unsee/NAME` -> value: method, settings, training, hashes, version.

    Settings that may name somebody are left out, and so is the path of the data.
    """
    if not (out / RECORD).is_file():
        return {}
    run_settings = config.read_mapping(out / RECORD)
    method, record = dict(run_settings["method"]), run_settings.get("record") or {}
    entries = {
        "method": method.pop("name"),
        "model": PurePath(run_settings["model"]).name,
        "seed": run_settings.get("seed", 0),
        "version": (record.get("versions") or {}).get("unsee", ""),
        **{name: str(record.get(name, ""))[:16] for name in ("model_hash", "data_hash")},
        **{f"settings/{name}": value for name, value in nameless(method).items()},
        **{f"training/{name}": value for name, value in nameless(run_settings["training"]).items()},
    }
    return {f"unsee/{name}": value for name, value in entries.items()}


def report(out: Path, numbers: Mapping[str, float]) -> None:
    """Send numbers about a finished run to the trackers of its training, if it had any."""
    arguments = trackers.read_record(out).get("arguments")
    if not arguments or not numbers:
        return
    from unsee.compat.callbacks import send

    steps = config.result_of(out).get("steps", 0)
    with trackers.beside(out):
        send(
            arguments,
            run_entries(out),
            {f"eval_{_ODD.sub('_', name)}": value for name, value in numbers.items()},
            steps,
        )


def report_scores(out: Path, scores: Mapping[str, Score]) -> None:
    """Send the scores of a finished run to the trackers of its training, if it had any."""
    report(out, {name: score.value for name, score in scores.items() if score.value is not None})
