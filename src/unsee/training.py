"""The one training loop: `minimise(session, objective)` on transformers' Trainer."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import Module
from torch.utils.data import DataLoader, Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from unsee.api import Session, Training
from unsee.batching import AnswerLogprob, Batch, Target, answer_logits, answer_logprob, collate
from unsee.errors import TrainingError, UserError
from unsee.memory import peak_gib, reset_peak
from unsee.plan import Plan
from unsee.stopping import seen_probes, unlearning_success
from unsee.tuning import prepare, summary, trainable

__all__ = [
    "AnswerLogprob",
    "Batch",
    "Objective",
    "Target",
    "answer_logits",
    "answer_logprob",
    "collate",
    "minimise",
    "prepare",
    "trainable",
]

Objective = Callable[[Batch, Batch | None], dict[str, Tensor]]
"""Maps a forget and a retain batch to named scalars; "loss" is minimised, the others are only logged."""

WEIGHTS = "trainable.safetensors"
_COLUMNS = (
    TextColumn("training"),
    BarColumn(),
    MofNCompleteColumn(),
    TextColumn("{task.description}"),
    TimeRemainingColumn(),
)
COMPLETE = "complete"
"""Marker written last into a checkpoint; a folder without it was cut off while being written."""


def minimise(
    session: Session, objective: Objective, *, forget: Sequence[Target], retain: Sequence[Target] = ()
) -> None:
    """Minimise the objective over the forget targets, each batch paired with one of retain targets (if any).

    Obeys `session.training` (epochs, stop rule, schedule, ...), resumes from `out/checkpoints` if `session.resume`,
    and adds to `session.history`, `session.notes` and `out/log.jsonl`.
    """
    if not forget:
        raise UserError("There is nothing to forget: the forget role has no example this method can train on.")
    plan = Plan(tuple(forget), tuple(retain), session.training, session.seed)
    session.notes.update(summary(session.model))
    if not session.notes["trainable"]:
        raise TrainingError("No weight is trainable; call `prepare` on the model first.")
    _prepare_checkpointing(session)
    reset_peak()
    start = time.perf_counter()
    watch = _Watch(session, plan)
    trainer = _UnlearningTrainer(session, plan, objective, watch)
    trainer.run(watch)
    session.notes.update(
        steps=trainer.state.global_step,
        epochs=round(plan.epoch_at(trainer.state.global_step), 3),
        stop_reason=watch.stop_reason,
        train_seconds=round(time.perf_counter() - start, 3),
        peak_gib=peak_gib(),
    )


class _Batches(Dataset[dict[str, Batch | None]]):
    """The plan as tensors, made when asked for."""

    def __init__(self, session: Session, plan: Plan) -> None:
        self.session = session
        self.plan = plan

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> dict[str, Batch | None]:
        forget, retain = self.plan.batch(index)
        return {
            "forget": collate(self.session, forget, index),
            "retain": collate(self.session, retain, index) if retain else None,
        }


def _single(items: list[dict[str, Batch | None]]) -> dict[str, Batch | None]:
    return items[0]


class _UnlearningTrainer(Trainer):
    """A Trainer whose data are planned batches and whose loss is the objective's."""

    def __init__(self, session: Session, plan: Plan, objective: Objective, watch: _Watch) -> None:
        self.session = session
        self.objective = objective
        self.watch = watch
        self.batches = _Batches(session, plan)
        super().__init__(
            model=session.model, args=_arguments(session, plan), train_dataset=self.batches, callbacks=[watch]
        )
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = False

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return the batches in the order of the plan."""
        loader = DataLoader(self.batches, batch_size=1, shuffle=False, collate_fn=_single)
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared

    def compute_loss(
        self,
        model: Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Return the objective's loss; a loss that is no number ends the run before any weight changes."""
        batch: Batch = inputs["forget"]
        parts = self.objective(batch, inputs["retain"])
        self.watch.note(batch, parts)
        if not torch.isfinite(parts["loss"]):
            raise self.watch.broken("loss", self.state.global_step + 1)
        return parts["loss"]

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the trainable weights only, by name."""
        _save_trainable(self.session.model, Path(output_dir or str(self.args.output_dir)))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Module | None = None) -> None:
        """Load the trainable weights; every name must be there."""
        load_trainable(self.session.model, Path(resume_from_checkpoint))

    def run(self, watch: _Watch) -> None:
        """Train, from the last complete checkpoint if the session resumes."""
        folder = Path(str(self.args.output_dir))
        checkpoint = last_checkpoint(folder) if self.session.resume else None
        if checkpoint is None and folder.exists():
            shutil.rmtree(folder)
        watch.open_log(0 if checkpoint is None else int(checkpoint.name.rpartition("-")[2]))
        try:
            self.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        finally:
            watch.progress.stop()
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        self.session.model.eval()
        self.session.model.zero_grad(set_to_none=True)


class _Watch(TrainerCallback):
    """Logs every step, guards the numbers, applies the stop rule, marks complete checkpoints."""

    def __init__(self, session: Session, plan: Plan) -> None:
        self.session = session
        self.plan = plan
        self.probes = seen_probes(plan.forget) if session.training.stop == "forgotten" else []
        self.check_every = session.training.check_every or plan.steps_per_epoch
        self.stop_reason = "all steps done"
        self.seen: list[str] = []
        self.sums: dict[str, float] = {}
        self.micro = 0
        self.usr: float | None = None
        console = Console(stderr=True)
        self.progress = Progress(*_COLUMNS, console=console, transient=True, disable=not console.is_terminal)
        self.task = self.progress.add_task("", total=plan.steps)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Show the progress line (in a terminal only)."""
        self.progress.start()

    def note(self, batch: Batch, parts: dict[str, Tensor]) -> None:
        """Remember the loss parts and example ids of a batch."""
        self.micro += 1
        self.seen.extend(example.id for example in batch.examples)
        for name, value in parts.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value.detach())

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Refuse gradients that are no numbers and, at the first step, gradients that are all zero."""
        grads = [weight.grad for weight in trainable(self.session.model).values() if weight.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads) if grads else torch.zeros(())
        if not torch.isfinite(norm):
            raise self.broken("gradient", state.global_step + 1)
        if state.global_step == 0 and norm == 0:
            raise TrainingError(
                "The first step has no gradient: the loss does not depend on any trainable weight. "
                "Check training.parts and, for a method's objective, that it uses session.model with gradients."
            )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Check the stop rule when it is due; the step that stops needs no checkpoint."""
        if self.probes and state.global_step % self.check_every == 0:
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
        row |= {"grad_norm": logs["grad_norm"], "lr": logs["learning_rate"]}
        if self.usr is not None:
            row["usr"] = self.usr
        self.session.history.append(row)
        usr = "" if self.usr is None else f" forgotten {self.usr:.0%}"
        self.progress.update(self.task, completed=state.global_step, description=f"loss {row['loss']:.3f}{usr}")
        with self.log_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self.sums, self.micro, self.seen, self.usr = {}, 0, [], None

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Mark the checkpoint just written as complete."""
        (Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / COMPLETE).touch()

    @property
    def log_file(self) -> Path:
        """Where the rows go."""
        return self.session.out / "log.jsonl"

    def open_log(self, done: int) -> None:
        """Keep the rows up to the step the run resumes from, drop the rest."""
        self.session.out.mkdir(parents=True, exist_ok=True)
        lines = self.log_file.read_text(encoding="utf-8").splitlines() if done and self.log_file.exists() else []
        rows = [row for row in map(json.loads, lines) if row["step"] <= done]
        self.session.history.extend(rows)
        self.log_file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def broken(self, what: str, step: int) -> TrainingError:
        """Save the weights, which are still those before the step, and return the error."""
        folder = self.session.out / "last_good"
        _save_trainable(self.session.model, folder)
        return TrainingError(
            f"The {what} is not a finite number at step {step} (examples {', '.join(self.seen)}). The weights before "
            f"this step are in {folder / WEIGHTS}. Lower training.lr or set training.clip."
        )


def _save_trainable(model: Module, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: weight.detach().contiguous().clone() for name, weight in trainable(model).items()}
    save_file(weights, folder / WEIGHTS)


def load_trainable(model: Module, folder: Path) -> None:
    """Load what a checkpoint or `last_good` holds into the trainable weights; names must agree exactly."""
    saved = load_file(folder / WEIGHTS)
    weights = trainable(model)
    if saved.keys() != weights.keys():
        odd = sorted(saved.keys() ^ weights.keys())
        raise UserError(f"{folder} was written by a run that tuned other weights (e.g. {odd[0]}); use its settings.")
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(saved[name])


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint that was written to the end, if any."""
    complete = [marker.parent for marker in folder.glob(f"checkpoint-*/{COMPLETE}")]
    return max(complete, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _prepare_checkpointing(session: Session) -> None:
    """Let gradients reach adapters through checkpointed, otherwise frozen layers."""
    if session.training.gradient_checkpointing:
        model: Any = session.model
        model.enable_input_require_grads()


def _half(training: Training) -> bool:
    """Tell whether to train under bf16 autocast."""
    if training.precision == "auto":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return training.precision == "bf16"


def _arguments(session: Session, plan: Plan) -> TrainingArguments:
    """Translate our settings into the Trainer's."""
    training = session.training
    warm = training.warmup_steps > 0 and training.scheduler == "constant"
    return TrainingArguments(
        output_dir=str(session.out / "checkpoints"),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=training.accumulate,
        max_steps=plan.steps,
        learning_rate=training.lr,
        weight_decay=training.weight_decay,
        max_grad_norm=training.clip,
        lr_scheduler_type="constant_with_warmup" if warm else training.scheduler,
        warmup_steps=training.warmup_steps,
        bf16=_half(training),
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=training.checkpoint_every or plan.steps_per_epoch,
        save_total_limit=2,
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
        seed=session.seed,
        data_seed=session.seed,
        use_cpu=not torch.cuda.is_available(),
        **_recompute(training),
    )


def _recompute(training: Training) -> dict[str, Any]:
    """Return the Trainer's settings for gradient checkpointing, under the name this transformers version gives them."""
    if not training.gradient_checkpointing:
        return {}
    known = {field.name for field in fields(TrainingArguments)}
    name = "activation_checkpointing" if "activation_checkpointing" in known else "gradient_checkpointing"
    return {name: True, f"{name}_kwargs": {"use_reentrant": False}}
