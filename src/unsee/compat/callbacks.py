"""Callbacks and trackers of transformers without its Trainer.

Only `TrainingArguments`, which callbacks are given, is more than documented API: it reads the launcher's environment, which
is hidden from it. The plain way is `training.report_to=none` and no callbacks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Final

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks

from unsee.errors import UserError
from unsee.utils.terminal import note_once

_LAUNCHER: Final = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
_RESET: Final[Mapping[str, Sequence[str]]] = {
    "on_train_begin": ("should_training_stop",),
    "on_epoch_begin": ("should_epoch_stop",),
    "on_step_begin": ("should_log", "should_evaluate", "should_save"),
    "on_save": ("should_save",),
    "on_log": ("should_log",),
}
"""Flags of `TrainerControl` that are cleared when an event is fired, as in the Trainer."""


@dataclass
class Callbacks:
    """Callbacks in calling order, and the arguments that the Trainer would pass."""

    callbacks: Sequence[TrainerCallback]
    arguments: TrainingArguments
    state: TrainerState
    given: Mapping[str, Any]
    """Keyword arguments of every event: model, processing_class, optimizer, ..."""
    trackers: Sequence[TrainerCallback] = ()
    """Those of the callbacks whose failure does not end the run: they report elsewhere what log.jsonl has."""

    def __post_init__(self) -> None:
        """Start with all control flags cleared."""
        self.control = TrainerControl()
        self.stopped_by = ""
        """Class of the callback that requested the end of training."""

    def fire(self, event: str, **more: Any) -> None:
        """Fire an event on every callback."""
        for flag in _RESET.get(event, ()):
            setattr(self.control, flag, False)
        for callback in self.callbacks:
            was_stopped = self.control.should_training_stop
            control = self._call(callback, event, more)
            self.control = self.control if control is None else control
            if self.control.should_training_stop and not was_stopped:
                self.stopped_by = type(callback).__name__
            self._require_possible(callback)

    def _call(self, callback: TrainerCallback, event: str, more: Mapping[str, Any]) -> TrainerControl | None:
        """Call one callback. A tracker that fails is left out from then on, with a note."""
        handler = getattr(callback, event)
        context = _placeless(self.given["model"]) if callback in self.trackers else nullcontext()
        try:
            with context:
                control: TrainerControl | None = handler(self.arguments, self.state, self.control, **self.given, **more)
        except Exception as error:
            if callback not in self.trackers:
                raise
            _without(type(callback).__name__, error)
            self.callbacks = [other for other in self.callbacks if other is not callback]
            return None
        return control

    def _require_possible(self, callback: TrainerCallback) -> None:
        for flag in ("should_epoch_stop", "should_evaluate"):
            if getattr(self.control, flag):
                raise UserError(
                    f"The callback {type(callback).__name__} sets control.{flag}, which this training cannot do. "
                    "It obeys should_training_stop, should_save and should_log."
                )


def instantiate(callbacks: Sequence[Any]) -> list[TrainerCallback]:
    """Return the callbacks, with classes instantiated, and reject anything else."""
    instances = [callback() if isinstance(callback, type) else callback for callback in callbacks]
    for instance in instances:
        if not isinstance(instance, TrainerCallback):
            raise UserError(f"callbacks: expected transformers.TrainerCallback, got {type(instance).__name__}.")
    return instances


def tracker_callbacks(names: Sequence[str]) -> list[TrainerCallback]:
    """Return one callback per tracker that can be started."""
    started = []
    for callback in get_reporting_integration_callbacks(list(names)):
        try:
            started.append(callback())
        except Exception as error:  # noqa: BLE001 - no account, no network, a broken package: whatever it is, the run goes on
            _without(callback.__name__, error)
    return started


@contextmanager
def _placeless(model: Any) -> Iterator[None]:
    """Remove the paths from a model's config within the block, since trackers send the whole config."""
    attributes = [(getattr(model, "config", None), "_name_or_path")]
    attributes += [
        (adapter, "base_model_name_or_path") for adapter in (getattr(model, "peft_config", None) or {}).values()
    ]
    originals = [(owner, name, getattr(owner, name)) for owner, name in attributes if hasattr(owner, name)]
    for config, name, _ in originals:
        setattr(config, name, "")
    try:
        yield
    finally:
        for config, name, value in originals:
            setattr(config, name, value)


def _without(name: str, error: Exception) -> None:
    """Note that a tracker failed and the run goes on."""
    note_once(
        f"the tracker {name} failed ({type(error).__name__}: {error!s:.200}) and gets nothing more; "
        "log.jsonl in the run folder has every step."
    )


class _Described(TrainingArguments):
    """TrainingArguments with additional entries in the settings that trackers show."""

    more: Mapping[str, Any] = MappingProxyType({})

    def to_dict(self) -> dict[str, Any]:
        """Return all fields but the run's folder, and the additional ones."""
        values = {name: value for name, value in super().to_dict().items() if name != "output_dir"}
        return {**values, **self.more}


def arguments(settings: Mapping[str, Any], described: Mapping[str, Any]) -> TrainingArguments:
    """Return TrainingArguments with the settings that this transformers version supports.

    `described` is shown beside them by trackers.
    """
    field_names = {field.name for field in fields(TrainingArguments)}
    with _launcher_hidden():
        training_arguments = _Described(**{name: value for name, value in settings.items() if name in field_names})
    training_arguments.more = described
    return training_arguments


def send(settings: Mapping[str, Any], described: Mapping[str, Any], logs: Mapping[str, float], step: int) -> None:
    """Send numbers to the trackers of a run that has ended, as of a step. A tracker that fails is only noted.

    Args:
        settings: Training settings of the run, of which `report_to` names the trackers.
        described: Facts of the run (model, data, method) that trackers store as its configuration.
        logs: Metric -> number.
        step: Step at which the numbers are drawn.
    """
    trackers = tracker_callbacks(settings["report_to"])
    state = TrainerState(global_step=step, max_steps=step, is_local_process_zero=True, is_world_process_zero=True)
    events = Callbacks(trackers, arguments(settings, described), state, {"model": None}, trackers=trackers)
    events.fire("on_train_begin")
    events.fire("on_log", logs=dict(logs))
    events.fire("on_train_end")


@contextmanager
def _launcher_hidden() -> Iterator[None]:
    """Hide the launcher from `TrainingArguments`, since unsee applies FSDP itself."""
    hidden = {name: os.environ.pop(name) for name in _LAUNCHER if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)
