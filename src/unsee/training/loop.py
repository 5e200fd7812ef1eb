"""Training loop of all methods.

It fires the events of transformers' `TrainerCallback`s, but is not its Trainer: losses that yield their terms, sharded models
without a wrapper and checkpoints for any number of processes would have to override private methods of it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import LayerNorm, Module, Parameter
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import TrainerState, get_scheduler, set_seed

from unsee.api import Example, Session, Training
from unsee.api.request import Target
from unsee.compat.callbacks import Callbacks, arguments, instantiate, tracker_callbacks
from unsee.distributed import processes
from unsee.distributed.deepspeed import Zero
from unsee.distributed.fsdp import average_gradients, full_tensor
from unsee.inference.batching import Batch, collate, device_of
from unsee.models import tracking
from unsee.training.batch_plan import Plan
from unsee.training.callbacks import TrainingMonitor
from unsee.training.precision import autocast
from unsee.training.recompute import Forward
from unsee.training.resume import (
    HISTORY,
    checkpoint_bytes,
    checkpoint_folder,
    discard_after,
    empty_checkpoint,
    full_disk_explained,
    last_checkpoint,
    load_moments,
    load_state,
    restore_random_state,
    save_moments,
    save_state,
    seal,
    step_of,
)
from unsee.training.robust import Average, Perturbed
from unsee.training.trainable import load_trainable, save_trainable, trainable
from unsee.utils import trackers

Parts = dict[str, Tensor]
"""Named scalars; "loss" is minimised, the others are only logged."""
Objective = Callable[[Batch, Batch | None], Parts | Iterator[Parts]]
"""Maps a forget and a retain batch to one loss, or yields the terms of a sum one after the other.

A yielded term is backpropagated at once and its graph freed, so that memory holds one term's activations; what stands
after the `yield` runs after that backward pass, so that `with` blocks around it can act on the term's gradient alone.
"""

_UNDECAYED: Final = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)")
"""Names of weights without weight decay, beside those of LayerNorm modules."""


class _LossNotFiniteError(Exception):
    """A loss is NaN or infinite."""


class _Batches:
    """Batches of the plan as tensors, built on access."""

    def __init__(self, session: Session, plan: Plan) -> None:
        self.session = session
        self.plan = plan
        on_cpu = device_of(session.model).type == "cpu"  # building a batch there would take cores from the model
        self.ahead = ThreadPoolExecutor(1) if session.engine.prefetch and not on_cpu else None
        self.next: tuple[int, Future[tuple[Batch, Batch | None]]] | None = None

    def __getitem__(self, index: int) -> tuple[Batch, Batch | None]:
        if self.ahead is None:
            return self._make(index)
        batches = self.next[1].result() if self.next and self.next[0] == index else self._make(index)
        self.next = (index + 1, self.ahead.submit(self._make, index + 1)) if index + 1 < len(self.plan) else None
        return batches

    def close(self) -> None:
        """Stop building batches in the background."""
        if self.ahead is not None:
            self.ahead.shutdown(cancel_futures=True)

    def _make(self, index: int) -> tuple[Batch, Batch | None]:
        forget, retain = self.plan.batch(index)
        return self._mine(forget, index), self._mine(retain, index) if retain else None

    def _mine(self, targets: Sequence[Target], index: int) -> Batch:
        """Return this rank's rows of a batch, being sent to its device."""
        batch = collate(self.session, processes.share(targets), index, processes.share(range(len(targets))))
        return batch.fetched() if self.ahead else batch


class Loop:
    """Runs the optimizer steps of a plan and fires the events of transformers' callbacks."""

    def __init__(
        self,
        session: Session,
        plan: Plan,
        objective: Objective,
        *,
        apart: bool,
        forward: Forward,
        questions: Sequence[Example] | None = None,
    ) -> None:
        self.session = session
        self.plan = plan
        self.objective = objective
        self.apart = apart
        self.forward = forward
        self.monitor = TrainingMonitor(session, plan, questions)
        self.batches = _Batches(session, plan)
        self.save_every = session.training.checkpoint_every or plan.steps_per_epoch
        robust = session.training.robust
        self.perturbed = Perturbed(session) if robust in ("sam", "smoothing", "lat") else None
        self.average = Average(session.model, session.training.robust_mix) if robust == "averaging" else None
        self.ended = False
        """Whether guard or stop rule ended the run, now or before it was resumed."""

    def run(self) -> None:
        """Train, from the latest complete checkpoint if the session resumes."""
        set_seed(self.session.seed)
        checkpoint = self._resume_point()
        if checkpoint is not None:
            load_trainable(self.session.model, checkpoint)
            if self.average is not None:
                self.average.load(checkpoint)
        self._prepare(checkpoint)
        random_states = [] if checkpoint is None else self._load(checkpoint)
        self.monitor.open_log(self.state.global_step)
        try:
            self._train(random_states)
        finally:
            self.monitor.progress.stop()
            self.batches.close()
        self.session.model.eval()
        self.session.model.zero_grad(set_to_none=True)

    def _resume_point(self) -> Path | None:
        """Return the checkpoint to resume from, the same on every rank, and delete later ones."""
        out, resume = self.session.out, self.session.resume
        checkpoint = processes.from_main(last_checkpoint(out) if resume and processes.is_main() else None)
        if processes.is_main():
            discard_after(out, 0 if checkpoint is None else step_of(checkpoint))
        return checkpoint

    def _prepare(self, checkpoint: Path | None) -> None:
        """Create optimizer, schedule and callbacks."""
        session, training = self.session, self.session.training
        optimizer = make_optimizer(session.model, training)
        self.zero = Zero(session.model, optimizer, training) if processes.sharding() == "zero3" else None
        self.optimizer = optimizer if self.zero is None else self.zero.steps
        self.schedule = make_schedule(self.optimizer, training, self.plan.steps)
        state = self._state() if checkpoint is None else TrainerState.load_from_json(str(checkpoint / HISTORY))
        self.state = replace(
            state, is_local_process_zero=processes.is_main(), is_world_process_zero=processes.is_main()
        )
        settings = _arguments(session, self.plan, self.save_every)
        if processes.is_main():
            trackers.begin(session.out, settings)
        with trackers.beside(session.out):
            reporting = tracker_callbacks(trackers.tracker_names(training.report_to))
        callbacks = [*reporting, *instantiate(session.callbacks)]
        objects = {"model": session.model, "processing_class": session.processor, "optimizer": self.optimizer}
        objects |= {"lr_scheduler": self.schedule, "train_dataloader": None, "eval_dataloader": None}
        run_facts = tracking.run_entries(session.out) if reporting else {}
        self.events = Callbacks(callbacks, arguments(settings, run_facts), self.state, objects, trackers=reporting)
        self.events.fire("on_init_end")

    def _state(self) -> TrainerState:
        return TrainerState(
            max_steps=self.plan.steps,
            num_train_epochs=self.session.training.epochs,
            logging_steps=1,
            save_steps=self.save_every,
            train_batch_size=self.session.training.batch_size,
        )

    def _load(self, checkpoint: Path) -> list[dict[str, Any]]:
        """Restore optimizer and schedule, and return the random states of all ranks."""
        if self.zero is None:
            load_moments(self.optimizer, self.session.model, checkpoint)
        else:
            self.zero.load(str(checkpoint))
        state = load_state(checkpoint)
        self.schedule.load_state_dict(state["schedule"])
        for group, rate in zip(self.optimizer.param_groups, self.schedule.get_last_lr(), strict=True):
            group["lr"] = rate
        self.ended = bool(state["ended"])
        self.monitor.stop_reason = state["ended"] or self.monitor.stop_reason
        random_states: list[dict[str, Any]] = state["random"]
        return random_states

    def _train(self, random_states: list[dict[str, Any]]) -> None:
        """Take all steps, or as many as checks and callbacks allow."""
        self.session.model.zero_grad()  # a saliency sweep may have left gradients
        self.monitor.begin(self.state.global_step)
        with trackers.beside(self.session.out):
            self.events.fire("on_train_begin")
        if processes.is_main():
            trackers.note_id(self.session.out)
        torch.empty((), dtype=torch.int64).random_()  # as a DataLoader does: keeps the dropout of earlier versions
        restore_random_state(random_states)
        start = time.perf_counter()
        while self._goes_on():
            self._epoch()
        self.ended |= self.monitor.check_end(self.state.global_step)
        if self.average is not None:
            self.average.apply()
        self.monitor.require_output(self.state.global_step)
        self.monitor.stop_reason = self._stop_reason()
        self._report({"train_runtime": round(time.perf_counter() - start, 3)})
        self.events.fire("on_train_end")

    def _goes_on(self) -> bool:
        return (
            self.state.global_step < self.plan.steps
            and not self.ended
            and not self._is_requested("should_training_stop")
        )

    def _epoch(self) -> None:
        """Run the steps of one pass over the forget targets.

        A step across the border counts to the pass it began in.
        """
        epoch = int(self.plan.epoch_at(self.state.global_step))
        self.events.fire("on_epoch_begin")
        while self._goes_on() and int(self.plan.epoch_at(self.state.global_step)) == epoch:
            self._step()
        self.events.fire("on_epoch_end")
        self._save_if_wished()

    def _step(self) -> None:
        """Run one optimizer step. Non-finite numbers end the run."""
        self.events.fire("on_step_begin")
        step = self.state.global_step + 1
        self._accumulate()
        average_gradients(list(trainable(self.session.model).values()))
        self.monitor.compare_notes(step)
        norm = self._clip(step)
        self.events.fire("on_pre_optimizer_step")
        self.optimizer.step()
        self.events.fire("on_optimizer_step")
        if self.zero is not None:  # DeepSpeed computes the norm in its step
            norm = self.zero.grad_norm()
            self.monitor.require_gradient(norm, step)
        rate = float(self.schedule.get_last_lr()[0])
        self.schedule.step()
        self.session.model.zero_grad()
        self.monitor.require_weights(step)
        self.state.global_step, self.state.epoch = step, self.plan.epoch_at(step)
        self._finish_step(step, norm, rate)

    def _accumulate(self) -> None:
        """Backpropagate the batches of this step, each weighted by its share."""
        accumulate = self.session.training.accumulate
        first = self.state.global_step * accumulate
        indices = range(first, min(first + accumulate, len(self.plan)))
        for index in indices:
            if index > first:
                self.events.fire("on_substep_end")
            self.backpropagate(*self.batches[index], len(indices))

    def backpropagate(self, forget: Batch, retain: Batch | None, share: int) -> None:
        """Backpropagate the objective on a batch, by terms or as one sum, divided by `share`."""
        self.session.model.train()
        for batch in (forget, retain):
            if batch is not None:
                self.monitor.saw(batch)
        try:
            parts = self._backpropagated(forget, retain, share)
        except _LossNotFiniteError:  # `broken` saves the weights, which are no longer shifted here
            raise self.monitor.broken("loss", self.state.global_step + 1) from None
        self.monitor.note(parts)

    def _backpropagated(self, forget: Batch, retain: Batch | None, share: int) -> Parts:
        """Add the gradients of a batch, and return the values of the terms."""
        if self.perturbed is not None:
            make_terms = partial(self._terms, forget, retain)
            return self.perturbed.backpropagate(make_terms, self._each, forget, share)
        terms = self._terms(forget, retain)
        return self._each(terms, share) if self.apart else self._sum(terms, share)

    def _terms(self, forget: Batch, retain: Batch | None) -> Iterator[Parts]:
        """Yield the objective's terms. Only their forward passes run under autocast."""
        with self._forward():
            terms = self.objective(forget, retain)
        if isinstance(terms, dict):
            yield terms
            return
        while True:
            with self._forward():
                term = next(terms, None)
            if term is None:
                return
            yield term

    @contextmanager
    def _forward(self) -> Iterator[None]:
        """Run forward passes under autocast and, if enabled, activation recomputation."""
        with autocast(self.session.model, self.session.training), self.forward():
            yield

    def _each(self, terms: Iterable[Parts], share: int) -> Parts:
        """Backpropagate every term by itself, and return their values, losses summed."""
        parts: Parts = {}
        for term in terms:
            self._backward(term["loss"], share)
            parts = _add_parts(parts, {name: value.detach() for name, value in term.items()})
        return parts

    def _sum(self, terms: Iterator[Parts], share: int) -> Parts:
        """Backpropagate the sum of all terms in one pass, and return their values, losses summed."""
        parts: Parts = {}
        for term in terms:
            parts = _add_parts(parts, term)
        self._backward(parts["loss"], share)
        return {name: value.detach() for name, value in parts.items()}

    def _backward(self, loss: Tensor, share: int) -> None:
        if processes.world() == 1 and not torch.isfinite(loss):
            raise _LossNotFiniteError
        backward: Any = (loss / share).backward if self.zero is None else partial(self.zero.backward, loss / share)
        backward()

    def _clip(self, step: int) -> float:
        """Check and clip the gradients, and return the norm before clipping. DeepSpeed clips by itself."""
        if self.zero is not None:
            return 0.0
        weights = list(trainable(self.session.model).values())
        grads = [weight.grad for weight in weights if weight.grad is not None]
        norm = get_total_norm(grads) if grads else torch.zeros(())
        norm_value = float(full_tensor(norm))
        self.monitor.require_gradient(norm_value, step)
        if self.session.training.clip > 0:
            clip_grads_with_norm_(weights, self.session.training.clip, norm)
        return norm_value

    def _finish_step(self, step: int, norm: float, rate: float) -> None:
        """Run checks and callbacks, write log and checkpoint."""
        if self.average is not None:
            self.average.update(step)
        if self.monitor.due(step):
            with nullcontext() if self.average is None else self.average.applied():
                self.ended = self.monitor.check(step)
        control = self.events.control
        control.should_log = True
        control.should_training_stop |= self.ended or step == self.plan.steps
        control.should_save |= step % self.save_every == 0 and not control.should_training_stop
        self.events.fire("on_step_end")
        logs = self.monitor.log(step, norm, rate)
        if self.events.control.should_log:
            self._report(logs)
        self._save_if_wished()

    def _report(self, logs: dict[str, float]) -> None:
        """Pass numbers to the callbacks, trackers among them."""
        logs = {**logs, "epoch": self.state.epoch}
        self.state.log_history.append({**logs, "step": self.state.global_step})
        self.events.fire("on_log", logs=logs)

    def _is_requested(self, field: str) -> bool:
        """Tell whether a callback on any rank has set this TrainerControl field. Collective."""
        requested = bool(vars(self.events.control)[field])
        return any(processes.all_gather(requested)) if self.session.callbacks else requested

    def _stop_reason(self) -> str:
        """Return why training ends after this step."""
        if self.ended or self.state.global_step == self.plan.steps:
            return self.monitor.stop_reason
        return f"stopped at step {self.state.global_step} by the callback {self.events.stopped_by}".rstrip()

    def _save_if_wished(self) -> None:
        """Write a checkpoint if due or requested by a callback. Collective."""
        if not self._is_requested("should_save"):
            return
        folder = checkpoint_folder(self.session.out, self.state.global_step)
        with full_disk_explained(folder, "a checkpoint", checkpoint_bytes(self.session.model, self.session.training)):
            self._save(folder)
        self.events.fire("on_save")

    def _save(self, folder: Path) -> None:
        self.monitor.sync_log()
        if processes.is_main():
            empty_checkpoint(self.session.out, self.state.global_step)
        save_trainable(self.session.model, folder)
        if self.average is not None:
            self.average.save(folder)
        if self.zero is None:
            save_moments(self.optimizer, self.session.model, folder)
        else:
            self.zero.save(str(folder))
        if processes.is_main():
            self.state.save_to_json(str(folder / HISTORY))
        ended = self._stop_reason() if self._is_requested("should_training_stop") else ""
        save_state(folder, {"schedule": self.schedule.state_dict(), "ended": ended})
        if processes.is_main():
            seal(folder)


def make_optimizer(model: Module, training: Training) -> Optimizer:
    """Return AdamW over the trainable weights, without decay on norms and biases."""
    undecayed: list[Parameter] = []
    decayed: list[Parameter] = []
    for name, weight in trainable(model).items():
        norm = isinstance(model.get_submodule(name.rpartition(".")[0]), LayerNorm)
        (undecayed if norm or _UNDECAYED.search(name.lower()) else decayed).append(weight)
    pairs = ((decayed, training.weight_decay), (undecayed, 0.0))
    groups = [{"params": weights, "weight_decay": decay} for weights, decay in pairs if weights]
    return AdamW(groups, lr=training.lr, betas=(0.9, 0.999), eps=1e-8, fused=True)


def make_schedule(optimizer: Optimizer, training: Training, steps: int) -> LRScheduler:
    """Return the learning-rate schedule for this many steps."""
    needs_warmup = training.warmup_steps > 0 and training.scheduler == "constant"
    name = "constant_with_warmup" if needs_warmup else training.scheduler
    schedule: LRScheduler = get_scheduler(name, optimizer, training.warmup_steps, steps)
    return schedule


def _add_parts(parts: Parts, term: Parts) -> Parts:
    """Return the parts of both, losses summed."""
    return {**parts, **term, "loss": parts["loss"] + term["loss"]} if parts else term


def _arguments(session: Session, plan: Plan, save_every: int) -> dict[str, Any]:
    """Return the settings under the names that callbacks and trackers read."""
    training = session.training
    return dict(
        output_dir=str(session.out / "checkpoints"),
        per_device_train_batch_size=training.batch_size,
        gradient_accumulation_steps=training.accumulate,
        num_train_epochs=training.epochs,
        max_steps=plan.steps,
        learning_rate=training.lr,
        weight_decay=training.weight_decay,
        max_grad_norm=training.clip,
        lr_scheduler_type=training.scheduler,
        warmup_steps=training.warmup_steps,
        logging_steps=1,
        save_strategy="steps",
        save_steps=save_every,
        disable_tqdm=True,
        seed=session.seed,
        use_cpu=not torch.cuda.is_available(),
        **trackers.arguments(training.report_to, session.out),
    )
