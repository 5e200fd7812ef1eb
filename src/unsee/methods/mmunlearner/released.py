"""The published MMUnlearner code (arXiv 2502.11051), defects included, for comparison.

A reimplementation from a description of that code. docs/published.md lists its defects.
Shapes: b batch, t tokens.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Literal

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.utils import clip_grad_norm_

from unsee.api import Part, Role, Session
from unsee.api.request import Target
from unsee.compat.checkpointing import checkpoint_activations, keep_activations
from unsee.errors import TrainingError, UserError
from unsee.inference.batching import Batch, collate
from unsee.losses import IGNORE
from unsee.methods.mmunlearner.masks import Entry, Mask, count, pack, unpack
from unsee.models.auto import eos_id
from unsee.training.trainable import summary, trainable
from unsee.utils.files import atomic_write_jsonl
from unsee.utils.memory import peak_gib, reset_peak
from unsee.utils.seeds import seed_of

Like = Literal["mllmu", "clear"]
"""Published script: MLLMU_manifold.py or CLEAR_manifold.py."""
Loss = Callable[[Batch], Tensor]

EPSILON: Final = 1e-15
"""Added to the denominator of the ratio; rounds to 0 in fp16."""
CLIP: Final = 1.0
BETAS: Final = (0.9, 0.999)
ADAM_EPSILON: Final = 1e-6
"""Defaults of `transformers.AdamW` in version 4, which the release uses."""
KEPT_NAMES: Final = ("proj", "fc", "linear", "mlp", "qkv")
"""Mask entries whose name has none of these are dropped before training."""
MASK_BATCH: Final[Mapping[Like, int]] = {"mllmu": 4, "clear": 2}


class ReleasedAdamW(torch.optim.Optimizer):
    """AdamW of transformers 4: eps joins sqrt(v) before bias correction.

    Moments have the weights' type.

    torch.optim.AdamW corrects v first, which makes its eps 32 times smaller at step 1.
    """

    def __init__(self, weights: Sequence[Tensor], lr: float) -> None:
        super().__init__(weights, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # noqa: ARG002 - the signature of every optimizer
        """Update every weight that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group["lr"])

    def _update(self, weight: Tensor, grad: Tensor, lr: float) -> None:
        state = self.state[weight]
        if not state:
            state.update(step=0, mean=torch.zeros_like(weight), square=torch.zeros_like(weight))
        state["step"] += 1
        beta1, beta2 = BETAS
        state["mean"].mul_(beta1).add_(grad, alpha=1 - beta1)
        state["square"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        step_size = lr * math.sqrt(1 - beta2 ** state["step"]) / (1 - beta1 ** state["step"])
        weight.addcdiv_(state["mean"], state["square"].sqrt().add_(ADAM_EPSILON), value=-step_size)


@dataclass(frozen=True, kw_only=True)
class Released:
    """One run of the published loop."""

    session: Session
    gamma: float
    alpha: float
    like: Like

    def make_mask(self, parts: Mapping[str, Part]) -> Mask:
        """Return m = (F_T + eps) / (F_P + eps) >= gamma in the model's dtype, in two sweeps."""
        masked_parts = {name: part for name, part in parts.items() if any(word in name for word in KEPT_NAMES)}
        if not masked_parts:
            raise UserError(f"No maskable weight has one of {', '.join(KEPT_NAMES)} in its name, as the release wants.")
        entries: dict[str, Entry] = {}
        self.session.model.train()
        for language in (False, True):
            names = [name for name, part in masked_parts.items() if (part == "language") == language]
            if names:
                target = self.fisher(names, _targets(self.session, Role.FORGET))
                text_roles = (Role.FORGET_TEXT, Role.RETAIN_TEXT) if language else ()
                preserve = self.fisher(names, _targets(self.session, Role.RETAIN, *text_roles))
                entries |= {
                    name: _ratio(target[name], preserve[name], self.gamma, masked_parts[name]) for name in names
                }
        facts = {
            "gamma": self.gamma,
            "granularity": "batch",
            "label_rule": "whole chat text",
            "seed": self.session.seed,
        }
        return Mask(entries=entries, facts=facts)

    def fisher(self, names: Sequence[str], targets: Sequence[Target]) -> dict[str, Tensor]:
        """Return the mean squared batch-mean gradient, in the model's dtype on the CPU."""
        model = self.session.model
        weights = {name: model.get_parameter(name) for name in names}
        totals = {name: torch.zeros_like(weight, device="cpu") for name, weight in weights.items()}
        batches = _batches(targets, MASK_BATCH[self.like], seed_of(self.session.seed, "fisher"))
        for batch in batches:
            model.zero_grad()
            _backward(whole_text_loss(model, collate(self.session, batch)))
            for name, weight in weights.items():
                if weight.grad is not None:
                    totals[name] += weight.grad.cpu() ** 2 / len(batches)
        model.zero_grad()
        return totals

    def train(self, mask: Mask | None) -> None:
        """Run the published steps: forget steps between retain steps, one AdamW, constant lr."""
        session, training = self.session, self.session.training
        optimizer = ReleasedAdamW(list(trainable(session.model).values()), lr=training.lr)
        session.model.train()
        session.notes.update(summary(session.model))
        reset_peak()
        start = time.perf_counter()
        epochs = self._steps(optimizer, mask)
        session.model.eval()
        session.notes.update(
            steps=len(session.history),
            epochs=epochs,
            stop_reason="all steps done",
            train_seconds=round(time.perf_counter() - start, 3),
            peak_gib=peak_gib(),
        )
        atomic_write_jsonl(session.out / "log.jsonl", session.history)

    @contextmanager
    def checkpointing(self) -> Iterator[None]:
        """Recompute activations in the block, if `training.gradient_checkpointing` is set."""
        if not self.session.training.gradient_checkpointing:
            yield
            return
        checkpoint_activations(self.session.model)
        try:
            yield
        finally:
            keep_activations(self.session.model)

    def require_rows(self) -> None:
        """Raise if forget or retain examples with images are missing."""
        if not _targets(self.session, Role.FORGET) or not _targets(self.session, Role.RETAIN):
            raise UserError("The published loop needs forget and retain examples with images; these data lack some.")

    def _steps(self, optimizer: torch.optim.Optimizer, mask: Mask | None) -> float:
        """Take all steps and return the number of passes over the retain examples."""
        session, training = self.session, self.session.training
        retain = _targets(session, Role.RETAIN)
        limit = None if training.max_steps == -1 else training.max_steps
        for step, (forget_batch, retain_batch) in enumerate(islice(self._pairs(retain), limit), 1):
            row = self.forget_step(optimizer, mask, forget_batch) if forget_batch else {}
            session.history.append({"step": step, **row, **self.retain_step(optimizer, retain_batch)})
        return round(len(session.history) / math.ceil(len(retain) / training.batch_size), 3)

    def _pairs(self, retain: Sequence[Target]) -> Iterator[tuple[list[Target] | None, list[Target]]]:
        """Yield each retain batch of every epoch, with a forget batch at even intervals."""
        session, training = self.session, self.session.training
        forget = _targets(session, Role.FORGET)
        for epoch in range(training.epochs):
            retain_batches = _batches(retain, training.batch_size, seed_of(session.seed, "retain", epoch))
            forget_batches = _batches(forget, training.batch_size, seed_of(session.seed, "forget", epoch))
            interval = max(1, len(retain_batches) // len(forget_batches))
            pending = iter(forget_batches)
            for index, retain_batch in enumerate(retain_batches):
                yield (next(pending, None) if index % interval == 0 else None), retain_batch

    def forget_step(
        self, optimizer: torch.optim.Optimizer, mask: Mask | None, targets: Sequence[Target]
    ) -> dict[str, float]:
        """Ascend: clip, then mask, then step the shared optimizer."""
        nll = self.loss(targets)
        _backward(-self.alpha * nll)
        weights = trainable(self.session.model)
        norm = clip_grad_norm_(list(weights.values()), CLIP)
        if mask is not None:
            for name, entry in mask.entries.items():
                grad = weights[name].grad
                if grad is not None:
                    grad.mul_(unpack(entry.bits.to(grad.device), entry.shape))
        optimizer.step()
        optimizer.zero_grad()
        return {"forget_nll": float(nll.detach()), "forget_norm": float(norm)}

    def retain_step(self, optimizer: torch.optim.Optimizer, targets: Sequence[Target]) -> dict[str, float]:
        """Descend. MLLMU clips, CLEAR does not."""
        nll = self.loss(targets)
        _backward(nll)
        if self.like == "mllmu":
            clip_grad_norm_(list(trainable(self.session.model).values()), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        return {"retain_nll": float(nll.detach())}

    def loss(self, targets: Sequence[Target]) -> Tensor:
        """Return the cross-entropy the published script trains on."""
        batch = collate(self.session, targets)
        if self.like == "mllmu":
            return whole_text_loss(self.session.model, batch)
        labels_bt = first_match_labels(batch, eos_id(self.session.processor))
        return _cross_entropy(self.session.model, batch, labels_bt)


def whole_text_loss(model: Module, batch: Batch) -> Tensor:
    """Return the token-mean cross-entropy over the whole chat text."""
    return _cross_entropy(model, batch, whole_text_labels(batch))


def whole_text_labels(batch: Batch) -> Tensor:
    """Return labels_bt of all but padding, question and image placeholders included."""
    return batch.inputs["input_ids"].masked_fill(batch.inputs["attention_mask"] == 0, IGNORE)


def first_match_labels(batch: Batch, eos: int) -> Tensor:
    """Return labels_bt of the first match of the answer's ids, without EOS.

    Without a match, of the whole row.
    """
    labels_bt = batch.inputs["input_ids"].clone()
    for labels_t, answer_labels_t in zip(labels_bt, batch.labels_bt, strict=True):
        answer_ids = [token for token in answer_labels_t[answer_labels_t != IGNORE].tolist() if token != eos]
        row_ids = labels_t.tolist()
        starts = (
            i for i in range(len(row_ids) - len(answer_ids) + 1) if row_ids[i : i + len(answer_ids)] == answer_ids
        )
        start = next(starts, None)
        if start is not None:
            labels_t[:start] = IGNORE
            labels_t[start + len(answer_ids) :] = IGNORE
    return labels_bt


def _cross_entropy(model: Module, batch: Batch, labels_bt: Tensor) -> Tensor:
    loss: Tensor = model(**batch.inputs, labels=labels_bt, use_cache=False).loss
    return loss


def _backward(loss: Tensor) -> None:
    if not torch.isfinite(loss):
        raise TrainingError(
            "The published loop's loss is not a finite number; half-precision AdamW with eps 1e-6 causes this. "
            "Lower training.lr or set method.released_precision=fp32."
        )
    step: Any = loss.backward
    step()


def _ratio(target: Tensor, preserve: Tensor, gamma: float, part: Part) -> Entry:
    bits = pack((target + EPSILON) / (preserve + EPSILON) >= gamma)
    dead = int(((target == 0) & (preserve == 0)).sum())
    return Entry(bits=bits, shape=tuple(target.shape), part=part, kept=count(bits), dead=dead)


def _targets(session: Session, *roles: Role) -> list[Target]:
    """Return the examples of these roles. Image roles only with an image."""
    image_roles = (Role.FORGET, Role.RETAIN)
    return [
        Target(example=example)
        for example in session.of(*roles)
        if example.image is not None or example.role not in image_roles
    ]


def _batches(targets: Sequence[Target], size: int, seed: int) -> list[list[Target]]:
    shuffled = list(targets)
    random.Random(seed).shuffle(shuffled)
    return [shuffled[i : i + size] for i in range(0, len(shuffled), size)]
