"""Experiment trackers of transformers (`training.report_to`), named after the run folder.

They get losses, learning rates, settings, and the scores of evaluations; never a question, an answer or an image.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from unsee.errors import UserError, unknown_name
from unsee.utils.files import atomic_write_json
from unsee.utils.parsing import read_object

PROJECT: Final = "unsee"
"""Default project of trackers without one in their environment variables."""
KEPT: Final = "trackers.json"
"""File of a run folder with what its trackers were given, and the ids of their runs."""
_TENSORBOARD: Final = "TENSORBOARD_LOGGING_DIR"
_PACKAGES: Final = {"azure_ml": "azureml-mlflow", "comet_ml": "comet-ml"}
"""Trackers whose package has a different name."""


def tracker_names(report_to: Sequence[str]) -> list[str]:
    """Return the trackers of the setting. "none" means none."""
    return [name for name in report_to if name != "none"]


def require(report_to: Sequence[str]) -> None:
    """Raise unless transformers supports these trackers and they are installed."""
    names = tracker_names(report_to)
    if not names:
        return
    from transformers import integrations

    for name in names:
        if name not in integrations.INTEGRATION_TO_CALLBACK:
            raise unknown_name("tracker in training.report_to", name, integrations.INTEGRATION_TO_CALLBACK)
        if name not in integrations.get_available_reporting_integrations():
            raise UserError(
                f"The tracker {name!r} is not installed: pip install {_PACKAGES.get(name, name)}, or leave it out of "
                "training.report_to (log.jsonl in the run folder has every step)."
            )


def arguments(report_to: Sequence[str], out: Path) -> dict[str, Any]:
    """Return the TrainingArguments fields that trackers read."""
    return {"report_to": tracker_names(report_to) or "none", "run_name": out.resolve().name, "project": PROJECT}


def begin(out: Path, settings: Mapping[str, Any]) -> None:
    """Record in `out` what trackers are given, so that scores go to the same run later.

    An existing record is kept, as when a run is resumed.
    """
    names = settings["report_to"]
    if names == "none" or (out / KEPT).exists():
        return
    ids = {"wandb": secrets.token_hex(4)} if "wandb" in names else {}
    atomic_write_json(out / KEPT, {"ids": ids, "arguments": dict(settings)})


def read_record(out: Path) -> dict[str, Any]:
    """Return what `begin` noted, or nothing where no tracker was used."""
    return read_object(out / KEPT) if (out / KEPT).is_file() else {}


def note_id(out: Path) -> None:
    """Record the id of MLflow's active run, which its server chooses."""
    record, mlflow = read_record(out), sys.modules.get("mlflow")
    if (
        mlflow is None
        or "mlflow" in record.get("ids", {})
        or "mlflow" not in record.get("arguments", {}).get("report_to", ())
    ):
        return
    if active_run := mlflow.active_run():
        atomic_write_json(out / KEPT, {**record, "ids": {**record["ids"], "mlflow": active_run.info.run_id}})


@contextmanager
def beside(out: Path) -> Iterator[None]:
    """Continue the tracker runs recorded in `out` for the block.

    TensorBoard writes to `out/tensorboard`, since its default lies where checkpoints are deleted. Environment variables that
    are set already win.
    """
    ids = read_record(out).get("ids", {})
    variables = {_TENSORBOARD: str(out / "tensorboard")}
    if "wandb" in ids:
        variables |= {"WANDB_RUN_ID": ids["wandb"], "WANDB_RESUME": "allow"}
    if "mlflow" in ids:
        variables |= {"MLFLOW_RUN_ID": ids["mlflow"]}
    added = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
