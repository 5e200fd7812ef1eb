# ruff: noqa: ARG002 - the Trainer dictates what its hooks are given.
"""The one training loop: `minimise(session, objective)` on transformers' Trainer."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import fields as names_of
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.utils.data import DataLoader, Dataset
from transformers import PrinterCallback, Trainer, TrainingArguments

from unsee import devices, engine, features, trackers
from unsee.api import Session, Training
from unsee.batching import AnswerLogprob, Batch, Target, answer_logits, answer_logprob, collate, device_of
from unsee.errors import TrainingError, UserError
from unsee.files import owned_folder, remove_folder
from unsee.losses import answer_nll
from unsee.memory import peak_gib, reset_peak
from unsee.plan import Plan
from unsee.precision import autocast
from unsee.recompute import Forward, recomputing
from unsee.resuming import joined_state, last_checkpoint, random_state, spread_state
from unsee.sharding import average_gradients, launcher_hidden, shard, shell_of, unsharded
from unsee.tuning import load_trainable, prepare, save_trainable, summary, trainable
from unsee.watch import Watch
from unsee.zero import Zero, require_possible

__all__ = [
    "AnswerLogprob",
    "Batch",
    "Objective",
    "Target",
    "answer_logits",
    "answer_logprob",
    "collate",
    "minimise",
    "planned",
    "prepare",
    "required",
    "retain_term",
]

Parts = dict[str, Tensor]
"""Named scalars; "loss" is minimised, the others are only logged."""
Objective = Callable[[Batch, Batch | None], Parts | Iterator[Parts]]
"""Maps a forget and a retain batch to one loss, or yields the terms of a sum one after the other.

A yielded term is backpropagated at once and its graph freed, so that memory holds one term's activations; what stands
after the `yield` runs after that backward pass, so that `with` blocks around it can act on the term's gradient alone.
"""


def minimise(
    session: Session,
    objective: Objective,
    *,
    forget: Sequence[Target],
    retain: Sequence[Target] = (),
    separate: bool = False,
    retain_ratio: int = 1,
) -> None:
    """Minimise the objective over the forget targets, each batch paired with one of retain targets (if any).

    `retain_ratio`: the retain batch is so many times as large as the forget batch.
    `separate`: the terms of the objective must be backpropagated apart, even by the plain engine (one backward for all).
    Obeys `session.training` (epochs, stop rule, schedule, ...), resumes from `out/checkpoints` if `session.resume`,
    and adds to `session.history`, `session.notes` and `out/log.jsonl`.
    """
    if not forget:
        raise UserError("There is nothing to forget: the forget role has no example this method can train on.")
    if separate and devices.sharding() != "none":
        raise UserError(
            "This method masks gradients, which needs whole weights in every process. Use configs/ddp.yaml, or one process."
        )
    devices.start()
    plan = planned(session, forget, retain, retain_ratio)
    session.notes.update(summary(session.model))
    if not session.notes["trainable"]:
        raise TrainingError("No weight is trainable; call `prepare` on the model first.")
    reset_peak()
    start = time.perf_counter()
    watch = Watch(session, plan)
    apart = separate or (engine.current().separate_terms and devices.sharding() != "zero3")
    with features.shared(session), _spread(session, plan):
        _prepare_checkpointing(session)
        lean = recomputing(session.model, checkpointing=session.training.gradient_checkpointing)
        with lean as forward:
            trainer = _UnlearningTrainer(session, plan, objective, watch, apart=apart, forward=forward)
            trainer.run()
        _undo_checkpointing(session)
    session.notes.update(
        steps=trainer.state.global_step,
        epochs=round(plan.epoch_at(trainer.state.global_step), 3),
        stop_reason=watch.stop_reason,
        train_seconds=round(time.perf_counter() - start, 3),
        peak_gib=peak_gib(),
    )


def planned(session: Session, forget: Sequence[Target], retain: Sequence[Target], retain_ratio: int = 1) -> Plan:
    """Return which targets `minimise` will put into which batch."""
    return Plan(forget, retain, session.training, session.seed, devices.world(), retain_ratio)


def required(retain: Batch | None) -> Batch:
    """Return the retain batch of an objective that cannot do without."""
    if retain is None:
        raise TrainingError("This objective needs retain targets; pass `retain` to `minimise`.")
    return retain


def retain_term(session: Session, retain: Batch | None, weight: float) -> Iterator[Parts]:
    """Yield `weight` times the cross-entropy on the retain answers; nothing without a retain batch or weight."""
    if retain is not None and weight:
        retain_nll = answer_nll(*answer_logits(session.model, retain))
        yield {"loss": weight * retain_nll, "retain_nll": retain_nll}


class _Batches(Dataset[dict[str, Batch | None]]):
    """The plan as tensors, made when asked for."""

    def __init__(self, session: Session, plan: Plan) -> None:
        self.session = session
        self.plan = plan
        on_cpu = device_of(session.model).type == "cpu"  # where making a batch would take the cores of the model
        self.ahead = ThreadPoolExecutor(1) if engine.current().prefetch and not on_cpu else None
        self.next: tuple[int, Future[dict[str, Batch | None]]] | None = None

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> dict[str, Batch | None]:
        if self.ahead is None:
            return self._make(index)
        made = self.next[1].result() if self.next and self.next[0] == index else self._make(index)
        self.next = (index + 1, self.ahead.submit(self._make, index + 1)) if index + 1 < len(self) else None
        return made

    def _make(self, index: int) -> dict[str, Batch | None]:
        forget, retain = self.plan.batch(index)
        return {"forget": self._mine(forget, index), "retain": self._mine(retain, index) if retain else None}

    def _mine(self, targets: Sequence[Target], index: int) -> Batch:
        """Return the rows of a batch that this process computes, on their way to its device."""
        batch = collate(self.session, devices.share(targets), index, devices.share(range(len(targets))))
        return batch.fetched() if self.ahead else batch


def _single(items: list[dict[str, Batch | None]]) -> dict[str, Batch | None]:
    return items[0]


class _UnlearningTrainer(Trainer):
    """A Trainer whose data are planned batches and whose loss is the objective's."""

    def __init__(
        self, session: Session, plan: Plan, objective: Objective, watch: Watch, *, apart: bool, forward: Forward
    ) -> None:
        self.session = session
        self.apart = apart
        self.forward = forward
        self.objective = objective
        self.watch = watch
        self.zero: Zero | None = None
        self.batches = _Batches(session, plan)
        with launcher_hidden(), trackers.beside(session.out):
            super().__init__(
                model=session.model, args=_arguments(session, plan), train_dataset=self.batches, callbacks=[watch]
            )
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = False

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return the batches in the order of the plan; each process has its own rows of them already."""
        return DataLoader(self.batches, batch_size=1, shuffle=False, collate_fn=_single)

    def _wrap_model(self, model: Module, training: bool = True, dataloader: DataLoader[Any] | None = None) -> Module:
        """Return the model held in another one, so that the Trainer wraps it in nothing: objectives call it by itself."""
        made: Any = vars(self)["optimizer"]
        if devices.sharding() == "zero3":
            self.zero = Zero(model, made, self.session.training)
            self.watch.grad_norm = self.zero.grad_norm
            self.optimizer = self.zero.steps
        return _Held(model)

    def training_step(
        self, model: Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Backpropagate the objective's terms, each apart or all as one sum, and return the loss.

        A loss that is no number ends the run before any weight changes.
        """
        model.train()
        forget: Batch = inputs["forget"]
        self.watch.saw(forget)
        terms = self._terms(forget, inputs["retain"])
        whole = self._each(terms) if self.apart else self._sum(terms)
        if self.accelerator.sync_gradients:
            average_gradients(list(trainable(self.session.model).values()))
        self.watch.note(whole)
        return whole["loss"]

    def _terms(self, forget: Batch, retain: Batch | None) -> Iterator[Parts]:
        """Yield the objective's terms; forward passes run under the chosen precision, what happens between them does not."""
        with self._forward():
            made = self.objective(forget, retain)
        if isinstance(made, dict):
            yield made
            return
        while True:
            with self._forward():
                term = next(made, None)
            if term is None:
                return
            yield term

    @contextmanager
    def _forward(self) -> Iterator[None]:
        """Run forward passes under the chosen precision, keeping for the backward pass what is dear to make again."""
        with autocast(self.session.model, self.session.training), self.forward():
            yield

    def _each(self, terms: Iterator[Parts]) -> Parts:
        """Backpropagate every term by itself; return their values, losses added up."""
        whole: Parts = {}
        for term in terms:
            self._backward(term["loss"])
            whole = _added(whole, {name: value.detach() for name, value in term.items()})
        return whole

    def _sum(self, terms: Iterator[Parts]) -> Parts:
        """Backpropagate the sum of all terms in one pass; return their values, losses added up."""
        whole: Parts = {}
        for term in terms:
            whole = _added(whole, term)
        self._backward(whole["loss"])
        return {name: value.detach() for name, value in whole.items()}

    def _backward(self, loss: Tensor) -> None:
        if devices.world() == 1 and not torch.isfinite(loss):
            raise self.watch.broken("loss", self.state.global_step + 1)
        scaled = loss / self.current_gradient_accumulation_steps
        if self.zero is not None:
            self.zero.backward(scaled)
        else:
            self.accelerator.backward(scaled)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the parts of the loss too, for trackers that know nothing of ours."""
        super().log({**logs, **self.watch.means()}, start_time)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the trainable weights only, by name."""
        save_trainable(self.session.model, Path(output_dir or str(self.args.output_dir)))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Save both as one process would, so that any number of processes can go on from there."""
        if self.optimizer is None or self.lr_scheduler is None:
            raise TrainingError("There is nothing to save before the training has begun.")
        if self.zero is not None:
            self.zero.save(output_dir)
        state = {} if self.zero is not None else joined_state(self.optimizer.state_dict())
        if devices.is_main():
            torch.save(state, Path(output_dir) / "optimizer.pt")
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / "scheduler.pt")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load both, spread as the weights are."""
        if self.zero is not None and checkpoint is not None and self.lr_scheduler is not None:
            self.zero.load(checkpoint)
            self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / "scheduler.pt", weights_only=True))
            return
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and self.optimizer is not None:
            spread_state(self.optimizer)

    def _save_rng_state(self, output_dir: str) -> None:
        """Save the random state of every process; the main one writes, under the names that the Trainer reads."""
        states = devices.everyone(random_state())
        for rank, state in enumerate(states if devices.is_main() else []):
            name = "rng_state.pth" if len(states) == 1 else f"rng_state_{rank}.pth"
            torch.save(state, Path(output_dir) / name)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Module | None = None) -> None:
        """Load the trainable weights; every name must be there."""
        load_trainable(self.session.model, Path(resume_from_checkpoint))

    def run(self) -> None:
        """Train, from the last complete checkpoint if the session resumes."""
        folder = Path(str(self.args.output_dir))
        checkpoint = devices.from_main(last_checkpoint(folder) if self.session.resume else None)
        if checkpoint is None and folder.exists() and devices.is_main():
            remove_folder(folder)
        if devices.is_main():
            owned_folder(folder)
        self.watch.open_log(0 if checkpoint is None else int(checkpoint.name.rpartition("-")[2]))
        try:
            self.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        finally:
            self.watch.progress.stop()
        self.session.model.eval()
        self.session.model.zero_grad(set_to_none=True)


def _added(whole: Parts, term: Parts) -> Parts:
    """Return the parts of both, their losses added up."""
    return {**whole, **term, "loss": whole["loss"] + term["loss"]} if whole else term


class _Held(Module):
    """Holds a model, and does nothing with it."""

    def __init__(self, model: Module) -> None:
        super().__init__()
        self.model = model


@contextmanager
def _spread(session: Session, plan: Plan) -> Iterator[None]:
    """Spread the weights over the processes for the block, if the launcher says so; plain again after it.

    Processes then work in lockstep: what one of them could skip (features it knows, a second pass for short rows), all do.
    """
    if devices.sharding() == "none":
        yield
        return
    language = session.family.parts(session.model)["language"]
    if devices.sharding() == "zero3":
        require_possible(session, [*plan.forget, *plan.retain])
    _require_alike(session, plan, language)
    features.forget(session.model)
    shell = shell_of(session.model)
    if devices.sharding() == "fsdp2":
        shard(session.model, language)  # DeepSpeed does it when there is an optimizer
    with engine.using(replace(engine.current(), vision_features=False, split_batches=False)):
        yield
    session.model = unsharded(shell, session.model)


def _require_alike(session: Session, plan: Plan, language: str) -> None:
    """Raise if weights are trained that rows without an image do not reach, for processes would reduce unlike gradients."""
    outside = [name for name in trainable(session.model) if not re.match(language, name)]
    kinds = {target.example.image is not None for side in (plan.forget, plan.retain) for target in side}
    if outside and len(kinds) > 1:
        raise UserError(
            "With FSDP the vision tower and the projector can be trained only if every row, or none, has an image. "
            "Train training.parts=language, leave the rows without images out, or use configs/ddp.yaml."
        )


def _prepare_checkpointing(session: Session) -> None:
    """Let gradients reach adapters through checkpointed, otherwise frozen layers."""
    if session.training.gradient_checkpointing:
        model: Any = session.model
        model.enable_input_require_grads()


def _undo_checkpointing(session: Session) -> None:
    """Take the hook of `_prepare_checkpointing` off again."""
    if session.training.gradient_checkpointing:
        model: Any = session.model
        model.disable_input_require_grads()


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
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=training.checkpoint_every or plan.steps_per_epoch,
        save_total_limit=2,
        remove_unused_columns=False,
        disable_tqdm=True,
        seed=session.seed,
        data_seed=session.seed,
        use_cpu=not torch.cuda.is_available(),
        **_recompute(training),
        **trackers.arguments(training.report_to, session.out),
    )


def _recompute(training: Training) -> dict[str, Any]:
    """Return the Trainer's settings for gradient checkpointing, under the name this transformers version gives them."""
    if not training.gradient_checkpointing:
        return {}
    known = {field.name for field in names_of(TrainingArguments)}
    name = "activation_checkpointing" if "activation_checkpointing" in known else "gradient_checkpointing"
    return {name: True, f"{name}_kwargs": {"use_reentrant": False}}
