# ruff: noqa: ARG002 - the Trainer dictates what its callbacks are given.
"""What goes on around each training step: log, guards, stop rule, marks on complete checkpoints."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from unsee import devices
from unsee.api import Session
from unsee.batching import Batch
from unsee.errors import TrainingError
from unsee.guards import Collapse
from unsee.plan import Plan
from unsee.sharding import joined
from unsee.stopping import seen_probes, unlearning_success
from unsee.tuning import WEIGHTS, save_trainable, trainable

COMPLETE = "complete"
"""Marker written last into a checkpoint; a folder without it was cut off while being written."""
_COLUMNS = (
    TextColumn("training"),
    BarColumn(),
    MofNCompleteColumn(),
    TextColumn("{task.description}"),
    TimeRemainingColumn(),
)


class Watch(TrainerCallback):
    """Logs every step, guards the numbers, applies the stop rule, marks complete checkpoints."""

    def __init__(self, session: Session, plan: Plan) -> None:
        self.session = session
        self.plan = plan
        self.probes = seen_probes(plan.forget) if session.training.stop == "forgotten" else []
        self.guard = Collapse(session, plan) if session.training.guard == "collapse" else None
        self.check_every = session.training.check_every or plan.steps_per_epoch
        self.stop_reason = "all steps done"
        self.seen: list[str] = []
        self.sums: dict[str, float] = {}
        self.micro = 0
        self.usr: float | None = None
        self.grad_norm: Callable[[], float] | None = None
        """What knows the gradient norm of a step, where gradients are in other hands than the Trainer's (ZeRO-3)."""
        console = Console(stderr=True)
        shown = console.is_terminal and devices.is_main()
        self.progress = Progress(*_COLUMNS, console=console, transient=True, disable=not shown)
        self.task = self.progress.add_task("", total=plan.steps)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Show the progress line (in a terminal only); let the guard look at the start."""
        if self.guard is not None:
            self.guard.begin(resumed=state.global_step > 0)
        self.progress.start()

    def saw(self, batch: Batch) -> None:
        """Remember whom a batch is about, before anything can go wrong with it."""
        self.seen.extend(example.id for example in batch.examples)

    def note(self, parts: dict[str, Tensor]) -> None:
        """Remember the loss parts of a batch."""
        self.micro += 1
        for name, value in parts.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value.detach())

    def means(self) -> dict[str, float]:
        """Return the mean of every part of the loss since the last logged row, and the share forgotten if it was checked."""
        found = {name: total / self.micro for name, total in self.sums.items() if name != "loss"}
        return found if self.usr is None else {**found, "usr": self.usr}

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Refuse losses and gradients that are no numbers and, at the first step, gradients that are all zero."""
        self._compare_notes(state.global_step + 1)
        if self.grad_norm is not None:
            return
        grads = [weight.grad for weight in trainable(self.session.model).values() if weight.grad is not None]
        norm = joined(torch.nn.utils.get_total_norm(grads)) if grads else torch.zeros(())
        if not torch.isfinite(norm):
            raise self.broken("gradient", state.global_step + 1)
        if state.global_step == 0 and norm == 0:
            raise TrainingError(
                "The first step has no gradient: the loss does not depend on any trainable weight. "
                "Check training.parts and, for a method's objective, that it uses session.model with gradients."
            )

    def _compare_notes(self, step: int) -> None:
        """Average over the processes what each noted, so that all log, and judge, the same numbers."""
        if devices.world() == 1:
            return
        notes = devices.everyone((self.sums, self.seen))
        self.sums = {name: sum(sums[name] for sums, _ in notes) / len(notes) for name in self.sums}
        self.seen = [example for _, seen in notes for example in seen]
        if not math.isfinite(self.sums["loss"]):
            raise self.broken("loss", step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Check guard and stop rule when it is due; the step that stops needs no checkpoint."""
        due = state.global_step % self.check_every == 0
        why = self.guard.collapsed() if due and self.guard is not None else ""
        if why:
            self.stop_reason = f"collapsed at step {state.global_step} ({why}); weights of the check before"
            control.should_training_stop = True
        elif self.probes and due:
            self.usr = unlearning_success(self.session, self.probes)
            if self.usr == 1.0:
                self.stop_reason = (
                    f"forgotten at step {state.global_step} (USR 1.0 on {len(self.probes)} seen questions)"
                )
                control.should_training_stop = True
        if control.should_training_stop:
            control.should_save = False
        return control

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the row of this step."""
        if not self.micro:
            return
        logs = kwargs["logs"]
        row: dict[str, Any] = {"step": state.global_step, "epoch": round(self.plan.epoch_at(state.global_step), 4)}
        row |= {name: total / self.micro for name, total in self.sums.items()}
        norm = logs["grad_norm"] if self.grad_norm is None else self.grad_norm()
        row |= {"grad_norm": norm, "lr": logs["learning_rate"]}
        if self.usr is not None:
            row["usr"] = self.usr
        if self.guard is not None:
            row |= self.guard.found
            self.guard.found = {}
        self.session.history.append(row)
        usr = "" if self.usr is None else f" forgotten {self.usr:.0%}"
        self.progress.update(self.task, completed=state.global_step, description=f"loss {row['loss']:.3f}{usr}")
        if devices.is_main():
            with self.log_file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        self.sums, self.micro, self.seen, self.usr = {}, 0, [], None

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Mark the checkpoint just written as complete."""
        if devices.is_main():
            (Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / COMPLETE).touch()

    @property
    def log_file(self) -> Path:
        """Where the rows go."""
        return self.session.out / "log.jsonl"

    def open_log(self, done: int) -> None:
        """Keep the rows up to the step the run resumes from, drop the rest."""
        lines = self.log_file.read_text(encoding="utf-8").splitlines() if done and self.log_file.exists() else []
        rows = [row for row in map(json.loads, lines) if row["step"] <= done]
        self.session.history.extend(rows)
        devices.barrier()
        if devices.is_main():
            self.session.out.mkdir(parents=True, exist_ok=True)
            self.log_file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def broken(self, what: str, step: int) -> TrainingError:
        """Save the weights, which are still those before the step, and return the error. All processes must call it."""
        folder = self.session.out / "last_good"
        save_trainable(self.session.model, folder)
        return TrainingError(
            f"The {what} is not a finite number at step {step} (examples {', '.join(self.seen)}). The weights before "
            f"this step are in {folder / WEIGHTS}. Lower training.lr or set training.clip."
        )
