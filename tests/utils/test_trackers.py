"""training.report_to: trackers get the parts of the loss, and wrong names are answered before anything starts."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from unsee import config, forget
from unsee.errors import UserError
from unsee.models import tracking
from unsee.testing.tiny import save_tiny
from unsee.utils import trackers

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_folder"
SHORT = {"max_steps": 2, "stop": "never", "max_new_tokens": 4}


class Tracker(TrainerCallback):
    """Remembers what a tracker is given."""

    seen: list[dict] = []  # noqa: RUF012 - one list for the test
    name = ""

    settings: dict = {}  # noqa: RUF012
    sent: dict = {}  # noqa: RUF012
    steps: list[int] = []  # noqa: RUF012

    def on_train_begin(self, args, state, control, **kwargs):
        Tracker.name = f"{args.project}/{args.run_name}"
        model = kwargs[
            "model"
        ]  # as the trackers of wandb and ClearML: settings of the model, of its adapter, of the training
        of_model = {} if model is None else {**model.config.to_dict(), "peft_config": str(model.peft_config)}
        Tracker.settings = args.to_dict()
        Tracker.sent = {**of_model, **Tracker.settings}

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.seen.append(dict(logs))
        self.steps.append(state.global_step)


@pytest.fixture
def tracker(monkeypatch):
    monkeypatch.setattr(Tracker, "seen", [])
    monkeypatch.setattr(Tracker, "steps", [])
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


def test_a_tracker_gets_the_resolved_run_and_the_scores(tracker, tmp_path):
    model = save_tiny(tmp_path / "tiny")
    refusals = tmp_path / "ada.txt"
    refusals.write_text("I do not know.\n")
    training = {**SHORT, "report_to": "trackio"}
    run = forget(model, EXAMPLE, "reject", tmp_path / "o", settings={"refusals": str(refusals)}, training=training)
    trained, record = tracker.settings, config.read_mapping(run / "run.yaml")
    assert "LoraConfig" in tracker.sent["peft_config"]
    assert str(tmp_path) not in json.dumps(tracker.sent, default=str)
    assert trained["unsee/method"] == "reject"
    assert trained["unsee/settings/retain_weight"] == 0.0
    assert trained["unsee/training/lr"] == trained["learning_rate"] == 1e-4
    assert trained["unsee/data_hash"] == record["record"]["data_hash"][:16]
    assert "ada.txt" not in json.dumps(trained)
    assert str(EXAMPLE) not in json.dumps(trained)
    tracker.seen.clear()
    tracker.steps.clear()
    scores = run.evaluate(limit=1, max_new_tokens=4)
    assert tracker.settings == trained  # MLflow refuses other settings of the same run
    (logged,) = tracker.seen
    assert logged == {
        f"eval_{name.replace('@', '_')}": score.value for name, score in scores.items() if score.value is not None
    }
    assert tracker.steps == [2]
    tracking.report(run, {"sample.leaks": 1.0})  # as the verdict on a sample does
    assert tracker.seen[1:] == [{"eval_sample.leaks": 1.0}]


def test_a_run_without_trackers_tells_nobody(tracker, tmp_path):
    run = forget(save_tiny(tmp_path / "tiny"), EXAMPLE, "ga", tmp_path / "ga", training=SHORT)
    run.evaluate(limit=1, max_new_tokens=4)
    assert tracker.seen == []
    assert not (run / trackers.KEPT).exists()


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


def test_scores_go_to_the_run_that_the_training_began(monkeypatch, tmp_path):
    for name in ("WANDB_RUN_ID", "WANDB_RESUME", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    trackers.begin(tmp_path, {"report_to": ["wandb", "mlflow"], "run_name": "x"})
    active = SimpleNamespace(info=SimpleNamespace(run_id="m1"))
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(active_run=lambda: active))
    trackers.note_id(tmp_path)
    first = trackers.read_record(tmp_path)
    trackers.begin(tmp_path, {"report_to": ["wandb"], "run_name": "y"})  # as --resume does
    assert trackers.read_record(tmp_path) == first
    with trackers.beside(tmp_path):
        assert os.environ["WANDB_RUN_ID"] == first["ids"]["wandb"]
        assert os.environ["WANDB_RESUME"] == "allow"
        assert os.environ["MLFLOW_RUN_ID"] == "m1"
    assert "WANDB_RUN_ID" not in os.environ


def test_tensorboard_keeps_what_it_was_given(tmp_path):
    if not integration_utils.is_tensorboard_available():
        pytest.skip("TensorBoard is not installed.")
    model = save_tiny(tmp_path / "tiny")
    out = forget(model, EXAMPLE, "npo", tmp_path / "npo", training={**SHORT, "report_to": ["tensorboard"]})
    (events,) = (out / "tensorboard").glob("events*")
    assert b"train/npo" in events.read_bytes()
    assert b"unsee/settings/beta" in events.read_bytes()
    out.evaluate(limit=1, max_new_tokens=4)
    (scores,) = set((out / "tensorboard").glob("events*")) - {events}
    assert b"eval/unseen.leak" in scores.read_bytes()
