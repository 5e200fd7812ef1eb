"""Time of a run, from a few steps on part of its data."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
from transformers import TrainerCallback

from unsee.api import Example, Method, Role, Session, Training
from unsee.config import Run
from unsee.data.shared_cache import VARIABLE
from unsee.distributed import processes
from unsee.models.checkpoint import load
from unsee.training.trainable import prepare

STEPS: Final = 3
"""Steps of the probe: one to warm up, one that is timed, one with a check."""
_FORGET: Final = (Role.FORGET, Role.FORGET_TEXT)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of the parts of a run on this machine."""

    before: float
    """Before the first step, on all forget rows: rollouts, reference log-likelihoods, masks."""
    step: float
    check: float
    """Of the answers for one check of the stop rule."""

    def total(self, steps: int, checks: int) -> float:
        """Return the seconds of a run of so many steps and checks."""
        return self.before + steps * self.step + checks * self.check


class _Clock(TrainerCallback):  # type: ignore[misc]  # transformers gives no types for it
    """Times of the beginning and the end of every step."""

    def __init__(self) -> None:
        self.begins: list[float] = []
        self.ends: list[float] = []

    def on_step_begin(self, *_: object, **__: object) -> None:
        """Note the time at the start."""
        self.begins.append(_now())

    def on_step_end(self, *_: object, **__: object) -> None:
        """Note the time at the end."""
        self.ends.append(_now())


def time_parts(run: Run, training: Training, examples: Mapping[Role, Sequence[Example]], method: Method) -> Timing:
    """Return the time of the parts of a run, measured over `STEPS` steps.

    The probe has the model, data and settings of the run. It takes the rows of so many batches; what happens before the first step and in a check is scaled up to all
    forget rows. It writes to a temporary folder only.

    Args:
        run: Run whose model, quantisation and seed are used.
        training: Its training settings; the number of steps is replaced.
        examples: Rows of each role, all of them: what is scaled up is scaled to their numbers.
        method: Method with its settings.
    """
    row_count = STEPS * training.batch_size * training.accumulate
    clock = _Clock()
    loaded = load(run.model, quantization=training.quantization, engine=run.engine)
    torch.manual_seed(run.seed)
    with tempfile.TemporaryDirectory() as folder, _no_cache():
        session = Session(
            vlm=replace(loaded, model=prepare(loaded.model.to(processes.device()), loaded.family, training, run.seed)),
            examples={role: rows[:row_count] for role, rows in examples.items()},
            training=_probe_training(training),
            seed=run.seed,
            out=Path(folder),
            callbacks=(clock,),
        )
        start = _now()
        method.unlearn(session)
        end = _now()
    probed_count = sum(min(row_count, len(examples.get(role, ()))) for role in _FORGET)
    scale = sum(len(examples.get(role, ())) for role in _FORGET) / max(1, probed_count)
    if len(clock.ends) < 2:  # one step fits its data, or none is taken
        step = clock.ends[0] - clock.begins[0] if clock.ends else 0.0
        return Timing(before=scale * (end - start - step), step=step, check=0.0)
    step = clock.ends[1] - clock.begins[1]
    last_step = clock.ends[-1] - clock.begins[-1] if len(clock.ends) == STEPS and training.stop != "never" else step
    return Timing(before=scale * (clock.begins[0] - start), step=step, check=scale * max(0.0, last_step - step))


def _probe_training(training: Training) -> Training:
    """Return the settings of the probe: as those of the run, with a check after the last step."""
    return replace(
        training,
        epochs=STEPS,
        max_steps=STEPS,
        warmup_steps=0,
        guard="none",
        check_every=STEPS,
        checkpoint_every=STEPS,
        report_to=(),
    )


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


@contextmanager
def _no_cache() -> Iterator[None]:
    """Keep caches that runs share out of the measurement."""
    earlier_value = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "off"
    try:
        yield
    finally:
        os.environ.pop(VARIABLE)
        if earlier_value is not None:
            os.environ[VARIABLE] = earlier_value
