"""training.report_to: trackers get the parts of the loss, and wrong names are answered before anything starts."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from unsee import forget
from unsee.errors import UserError
from unsee.testing.tiny import save_tiny
from unsee.utils import trackers

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_folder"
SHORT = {"max_steps": 2, "stop": "never", "max_new_tokens": 4}


class Tracker(TrainerCallback):
    """Remembers what a tracker is given."""

    seen: list[dict] = []  # noqa: RUF012 - one list for the test
    name = ""

    def on_train_begin(self, args, state, control, **kwargs):
        Tracker.name = f"{args.project}/{args.run_name}"

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.seen.append(dict(logs))


@pytest.fixture
def tracker(monkeypatch):
    monkeypatch.setattr(Tracker, "seen", [])
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "trackio", Tracker)
    monkeypatch.setattr(integration_utils, "get_available_reporting_integrations", lambda: ["trackio"])
    return Tracker


def test_a_tracker_gets_every_step_with_the_parts_of_the_loss(tracker, tmp_path):
    model = save_tiny(tmp_path / "tiny")
    out = forget(model, EXAMPLE, "npo", tmp_path / "runs" / "npo", training={**SHORT, "report_to": "trackio"})
    steps = [row for row in tracker.seen if "npo" in row]
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert len(steps) == len(rows) == 2
    for step, row in zip(steps, rows, strict=True):
        assert {"loss", "grad_norm", "learning_rate", "npo", "forget_log_p"} <= step.keys()
        assert step["forget_log_p"] == row["forget_log_p"]
        assert step["loss"] == pytest.approx(row["loss"], abs=1e-4)
    assert tracker.name == "unsee/npo"


@pytest.mark.parametrize("where", ["__init__", "on_train_begin", "on_log"])
def test_a_tracker_that_fails_ends_no_run(tracker, tmp_path, monkeypatch, capsys, where):
    def fails(*_, **__):
        raise ConnectionError(f"no network at {where}")

    monkeypatch.setattr(tracker, where, fails)
    training = {**SHORT, "report_to": "trackio"}
    out = forget(save_tiny(tmp_path / "tiny"), EXAMPLE, "ga", tmp_path / "ga", training=training)
    assert len((out / "log.jsonl").read_text().splitlines()) == 2
    assert capsys.readouterr().err.count(f"the tracker Tracker failed (ConnectionError: no network at {where})") == 1


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("tensorbord", "Unknown tracker in training.report_to 'tensorbord'. Did you mean tensorboard"),
        ("wandb", "'wandb' is not installed: pip install wandb"),
    ],
)
def test_wrong_names_are_answered_before_anything_starts(tracker, tmp_path, names, message):
    with pytest.raises(UserError, match=message):
        forget("no/model", EXAMPLE, "ga", tmp_path / "o", training={"report_to": names})
    assert not (tmp_path / "o").exists()


def test_none_is_none():
    trackers.require(("none",))
    assert trackers.arguments((), Path("runs/x"))["report_to"] == "none"
    assert trackers.arguments(("none",), Path("runs/x"))["report_to"] == "none"
    assert trackers.arguments(("wandb",), Path("runs/x"))["report_to"] == ["wandb"]


def test_tensorboard_writes_beside_the_run_unless_told_where(monkeypatch, tmp_path):
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    with trackers.beside(tmp_path):
        assert os.environ["TENSORBOARD_LOGGING_DIR"] == str(tmp_path / "tensorboard")
    assert "TENSORBOARD_LOGGING_DIR" not in os.environ
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "mine")
    with trackers.beside(tmp_path):
        assert os.environ["TENSORBOARD_LOGGING_DIR"] == "mine"


def test_tensorboard_keeps_what_it_was_given(tmp_path):
    if not integration_utils.is_tensorboard_available():
        pytest.skip("TensorBoard is not installed.")
    model = save_tiny(tmp_path / "tiny")
    out = forget(model, EXAMPLE, "npo", tmp_path / "npo", training={**SHORT, "report_to": ["tensorboard"]})
    (events,) = (out / "tensorboard").glob("events*")
    assert b"train/npo" in events.read_bytes()
