"""Experiment trackers of transformers (`training.report_to`), named after the run folder.

They get losses, learning rates and the settings of training and model; never a question, an answer or an image.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from unsee.errors import UserError, unknown_name

PROJECT: Final = "unsee"
"""Default project of trackers without one in their environment variables."""
_TENSORBOARD: Final = "TENSORBOARD_LOGGING_DIR"
_PACKAGES: Final = {"azure_ml": "azureml-mlflow", "comet_ml": "comet-ml"}
"""Trackers whose package has a different name."""


def wanted(report_to: Sequence[str]) -> list[str]:
    """Return the trackers of the setting. "none" means none."""
    return [name for name in report_to if name != "none"]


def require(report_to: Sequence[str]) -> None:
    """Raise unless transformers supports these trackers and they are installed."""
    names = wanted(report_to)
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
    return {"report_to": wanted(report_to) or "none", "run_name": out.resolve().name, "project": PROJECT}


@contextmanager
def beside(out: Path) -> Iterator[None]:
    """Make TensorBoard write to `out/tensorboard` for the block.

    Its default lies where checkpoints are deleted.
    """
    if _TENSORBOARD in os.environ:
        yield
        return
    os.environ[_TENSORBOARD] = str(out / "tensorboard")
    try:
        yield
    finally:
        del os.environ[_TENSORBOARD]
