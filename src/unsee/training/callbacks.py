"""Logging and checks of a training run: log rows, finite numbers, guard, stop rule."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from unsee.api import PROBES, Example, Session
from unsee.distributed import processes
from unsee.errors import NotFiniteError, TrainingError
from unsee.inference.batching import Batch
from unsee.training.batch_plan import Plan
from unsee.training.collapse_guard import CollapseGuard, spread
from unsee.training.resume import full_disk_explained, last_checkpoint, step_of
from unsee.training.stop_rule import finite_output, private_questions, seen_probes, unlearning_success
from unsee.training.trainable import WEIGHTS, finite, save_trainable, trainable_bytes
from unsee.utils.files import atomic_write_text
from unsee.utils.progress import Bar
from unsee.utils.terminal import note_once

_ROW = 4096
"""Largest size of a log row in bytes, for the message about a full disk."""


class TrainingMonitor:
    """Logs every step, rejects NaN and infinity, applies collapse guard and stop rule."""

    def __init__(self, session: Session, plan: Plan, questions: Sequence[Example] | None = None) -> None:
        """Choose what the stop rule asks: `questions`, or by default those of the forget targets."""
        self.session = session
        self.plan = plan
        self.probes: list[Example] = []
        if session.training.stop == "forgotten":
            self.probes = seen_probes(plan.forget) if questions is None else private_questions(questions, PROBES)
        if session.training.stop == "forgotten" and not self.probes:
            note_once(
                "training.stop=forgotten has no effect: no forget row has a private string that an answer could give away."
            )
        self.guard = CollapseGuard(session, plan) if session.training.guard == "collapse" else None
        self.sample = spread(plan.forget, session.training.batch_size)
        """Targets on which the model's output is checked to be finite."""
        self.check_every = session.training.check_every or plan.steps_per_epoch
        self.stop_reason = "all steps done"
        self.seen: list[str] = []
        self.sums: dict[str, float] = {}
        self.micro = 0
        self.usr: float | None = None
        self.has_learnt = False
        """Whether any step had a gradient, now or before the run was resumed."""
        self.progress = Bar("training", plan.steps, shown=processes.is_main())

    def begin(self, step: int) -> None:
        """Start the progress bar and the guard's baseline."""
        if self.guard is not None:
            self.guard.begin(resumed=step > 0)
        self.has_learnt = step > 0
        self.progress.start(step)

    def saw(self, batch: Batch) -> None:
        """Store the examples of a batch, for error messages."""
        self.seen.extend(example.id for example in batch.examples)

    def note(self, parts: dict[str, Tensor]) -> None:
        """Store the loss parts of a batch."""
        self.micro += 1
        for name, value in parts.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value.detach())

    def compare_notes(self, step: int) -> None:
        """Average the loss parts over ranks, so that all log and judge the same numbers."""
        if processes.world() == 1:
            return
        notes = processes.all_gather((self.sums, self.seen))
        self.sums = {name: sum(sums[name] for sums, _ in notes) / len(notes) for name in self.sums}
        self.seen = [example_id for _, example_ids in notes for example_id in example_ids]
        if not math.isfinite(self.sums["loss"]):
            raise self.broken("loss", step)

    def require_gradient(self, norm: float, step: int) -> None:
        """Raise if a gradient is not finite, or if the steps of the first epoch had none."""
        if not math.isfinite(norm):
            raise self.broken("gradient", step)
        self.has_learnt |= norm > 0
        if not self.has_learnt and step >= min(self.plan.steps, self.plan.steps_per_epoch):
            raise TrainingError(
                "The steps of the first epoch have no gradient: the loss does not depend on any trainable weight, or all samples "
                "are beyond method.ga_floor. Check training.parts, the weights of the method's terms and, for an objective of "
                "your own, that it uses session.model with gradients."
            )

    def require_weights(self, step: int) -> None:
        """Raise if a step has made weights infinite or NaN."""
        if not finite(self.session.model):
            raise self._not_finite_error(f"The weights are not finite numbers after step {step}")

    def require_output(self, step: int) -> None:
        """Raise if the model's log-probabilities are not finite."""
        if not finite_output(self.session, self.sample):
            raise self._not_finite_error(f"The output of the model is not finite after step {step}")

    def due(self, step: int) -> bool:
        """Tell whether guard or stop rule look at the model after this step. The guard does after the last one, too."""
        regular = step % self.check_every == 0
        guarded = self.guard is not None and (regular or step == self.plan.steps)
        return guarded or (regular and bool(self.probes))

    def check(self, step: int) -> bool:
        """Apply guard and stop rule after a step at which they are due, and tell whether training ends."""
        if self._has_collapsed(step):
            return True
        if not self.probes or step % self.check_every:
            return False
        self.require_output(step)
        try:
            self.usr = unlearning_success(self.session, self.probes)
        except NotFiniteError as error:
            raise self._not_finite_error(f"The output of the model is not finite after step {step}") from error
        if self.usr == 1.0:
            self.stop_reason = f"forgotten at step {step} (USR 1.0 on {len(self.probes)} seen questions)"
        return self.usr == 1.0

    def check_end(self, step: int) -> bool:
        """Apply the guard where a callback ended the run at a step without it, and tell whether training has collapsed."""
        return not self.due(step) and self._has_collapsed(step)

    def _has_collapsed(self, step: int) -> bool:
        reason = "" if self.guard is None else self.guard.collapse_reason()
        if reason:
            self.stop_reason = f"collapsed at step {step} ({reason}); weights of the check before"
        return bool(reason)

    def log(self, step: int, norm: float, rate: float) -> dict[str, float]:
        """Write the log row of a step, and return the numbers for trackers."""
        means = {name: total / self.micro for name, total in self.sums.items()}
        row: dict[str, Any] = {"step": step, "epoch": round(self.plan.epoch_at(step), 4), **means}
        row |= {"grad_norm": norm, "lr": rate}
        checks = {} if self.usr is None else {"usr": self.usr}
        if self.guard is not None:
            checks |= self.guard.last_results
            self.guard.last_results = {}
        self.session.history.append(row | checks)
        usr = "" if self.usr is None else f" forgotten {self.usr:.0%}"
        self.progress.update(step, f"loss {row['loss']:.3f}{usr}")
        if processes.is_main():
            with (
                full_disk_explained(self.log_file, "a row of the log", _ROW),
                self.log_file.open("a", encoding="utf-8") as file,
            ):
                file.write(json.dumps(row | checks) + "\n")
        self.sums, self.micro, self.seen, self.usr = {}, 0, [], None
        return {**means, "grad_norm": norm, "learning_rate": rate, **checks}

    @property
    def log_file(self) -> Path:
        """Path of log.jsonl."""
        return self.session.out / "log.jsonl"

    def open_log(self, steps: int) -> None:
        """Truncate the log to the step the run resumes from.

        Raises:
            TrainingError: A row of these steps is missing or cut off, which methods and readers of the history go by.
        """
        rows = _rows(processes.from_main(self._lines() if steps and processes.is_main() else []), steps)
        if [row["step"] for row in rows] != list(range(1, steps + 1)):
            raise TrainingError(
                f"{self.log_file} should have a row for each of the {steps} steps of the checkpoint, and has {len(rows)} that "
                "can be read. Restore the file, or start anew in another --out."
            )
        self.session.history.extend(rows)
        if processes.is_main():
            text = "".join(json.dumps(row) + "\n" for row in rows)
            with full_disk_explained(self.log_file, "the log", len(text)):
                atomic_write_text(self.log_file, text)

    def _lines(self) -> list[str]:
        return self.log_file.read_text(encoding="utf-8").splitlines() if self.log_file.exists() else []

    def sync_log(self) -> None:
        """Flush the log to disk before a checkpoint refers to it."""
        if processes.is_main() and self.log_file.exists():
            with self.log_file.open("rb") as file:
                os.fsync(file.fileno())

    def broken(self, quantity: str, step: int) -> TrainingError:
        """Return the error for a non-finite loss or gradient, found before the step. Collective."""
        return self._not_finite_error(
            f"The {quantity} is not a finite number at step {step} (examples {', '.join(self.seen)})", before=True
        )

    def _not_finite_error(self, fault: str, *, before: bool = False) -> TrainingError:
        """Return the error for non-finite weights, naming the last good ones. Collective."""
        advice = f"Lower training.lr (now {self.session.training.lr:g}) or set training.clip."
        return TrainingError(f"{fault}. {self._sound_weights(before=before)} {advice}")

    def _sound_weights(self, *, before: bool) -> str:
        """Write the last good weights to `last_good` and name them. Collective."""
        file, needed_bytes = self.session.out / "last_good" / WEIGHTS, trainable_bytes(self.session.model)
        if before and finite(self.session.model):
            with full_disk_explained(file, "the weights before this step", needed_bytes):
                save_trainable(self.session.model, file.parent)
            return f"The weights before this step are in {file}."
        if self.guard is not None:
            return f"The weights of the last sound check are in {file}."
        checkpoint = processes.from_main(last_checkpoint(self.session.out) if processes.is_main() else None)
        if checkpoint is None:
            return "No weights of this run were kept; the original model is as it was."
        if processes.is_main():
            file.parent.mkdir(exist_ok=True)
            with full_disk_explained(file, "the weights of the last checkpoint", needed_bytes):
                shutil.copyfile(checkpoint / WEIGHTS, file)
        return f"The weights after step {step_of(checkpoint)} are in {file}."


def _rows(lines: Sequence[str], last_step: int) -> list[dict[str, Any]]:
    """Return the rows up to a step, without lines that are cut off: `open_log` counts."""
    rows: list[dict[str, Any]] = []
    for line in lines:
        with suppress(ValueError):
            rows.append(json.loads(line))
    return [row for row in rows if row["step"] <= last_step]
