"""Reference model (before unlearning) without a second live copy.

With LoRA it is the same model with adapters disabled. With full tuning, reference outputs for the targets are computed before
training and cached. Full-vocabulary logits are cached as the hidden states before the output head (a few kB per token less)
and recomputed by that head, which is frozen or, with full tuning, copied: one matrix, no second model.
Log-likelihoods are also cached on disk and shared between runs (`unsee.data.shared_cache`).
Shapes: b batch, a answer positions (right-aligned), v vocabulary, d width of the model.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any, Literal

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn import Module

from unsee.api import Session
from unsee.api.request import Target
from unsee.compat.models import unwrapped
from unsee.compat.probes import trying
from unsee.compat.tensors import raw
from unsee.data import shared_cache
from unsee.distributed import processes
from unsee.errors import TrainingError
from unsee.inference.answer_logits import answer_logits, answer_logprob, in_order
from unsee.inference.batching import Batch, collate
from unsee.losses import IGNORE
from unsee.methods.common.instructions import served
from unsee.models.auto import evaluating
from unsee.models.steering.hooks import hashes
from unsee.training.precision import autocast, half

CACHE_BYTES = 2 * 2**30
"""Memory limit of cached teacher outputs; `auto` recomputes what does not fit."""
CHUNK = 32
"""Targets per forward pass when reference log-likelihoods are precomputed."""

Teacher = Literal["auto", "live", "cached"]


@contextmanager
def as_start(model: Module) -> Iterator[None]:
    """Turn the model into the reference for the block: eval, no gradient, adapters off."""
    adapters_off: Any = _adapters_off(model) if isinstance(model, PeftModel) else nullcontext()
    with torch.no_grad(), evaluating(model), adapters_off:
        yield


@contextmanager
def _adapters_off(model: PeftModel) -> Iterator[None]:
    """Switch adapters off for the block.

    PEFT makes all of them trainable when it switches them on again, so frozen ones are restored.
    """
    frozen_weights = [
        weight for name, weight in model.named_parameters() if ".lora_" in name and not weight.requires_grad
    ]
    try:
        with model.disable_adapter():
            yield
    finally:
        for weight in frozen_weights:
            weight.requires_grad_(False)


class StartLogprobs:
    """Summed answer log-likelihoods under the reference model.

    To be created before training.

    One number per target: computed ahead, or read from the cache shared between runs if an earlier run with the same weights
    computed it, spread over the processes if there are several. The plain engine runs a second live model each time instead.
    """

    def __init__(self, session: Session, targets: Sequence[Target]) -> None:
        self.session = session
        self.logprobs: dict[tuple[object, ...], float] = {}
        self.second = None if session.engine.reference else _second(session.model)
        if self.second is None:
            self.logprobs = start_logprobs(session, targets)

    def __call__(self, batch: Batch) -> Tensor:
        """Return start_b for the targets of the batch."""
        if self.second is None:
            return torch.tensor([self.logprobs[target.key] for target in batch.targets], device=batch.device)
        with as_start(self.second):
            return answer_logprob(self.second, batch).sum_b


def start_logprobs(session: Session, targets: Sequence[Target]) -> dict[tuple[object, ...], float]:
    """Return target key -> summed log-likelihood under the reference model.

    To be called before training.
    """
    distinct_targets = {target.key: target for target in targets}
    rows = _shared_rows(session) if processes.is_main() else None
    row_names = {key: _content(session, target) for key, target in distinct_targets.items()} if rows else {}
    cached: dict[tuple[object, ...], float] = processes.from_main(
        {key: value for key, name in row_names.items() if rows and (value := rows.get(name)) is not None}
    )
    missing_targets = [target for key, target in distinct_targets.items() if key not in cached]
    computed = dict(processes.gather(list(_logprobs(session, processes.share(missing_targets)).items())))
    if rows:
        rows.put({row_names[key]: value for key, value in computed.items()})
    return {**cached, **computed}


def _shared_rows(session: Session) -> shared_cache.KeyValueLog | None:
    """Return the rows of earlier runs with these weights, or None without a shared cache."""
    if shared_cache.shared_folder(session.out, session.engine) is None:  # hashing the weights takes a while
        return None
    return shared_cache.shared_rows(session.out, f"likelihoods/{weights_hash(session)[:16]}.jsonl", session.engine)


def _logprobs(session: Session, targets: Sequence[Target]) -> dict[tuple[object, ...], float]:
    logprobs: dict[tuple[object, ...], float] = {}
    with as_start(session.model), autocast(session.model, session.training):
        for start in range(0, len(targets), CHUNK):
            batch = collate(session, targets[start : start + CHUNK])
            sums = answer_logprob(session.model, batch).sum_b.tolist()
            logprobs.update(zip((target.key for target in batch.targets), sums, strict=True))
    return logprobs


def _content(session: Session, target: Target) -> str:
    """Return a hash of everything but the weights that a log-likelihood depends on."""
    row = collate(session, [target]).rows[0]
    image = target.example.image.key if target.example.image else ""
    pixels = {key: list(value.shape) for key, value in row.items() if key != "labels"}
    facts = [row["input_ids"].tolist(), row["labels"].tolist(), image, pixels, half(session.training)]
    facts.append(pixel_settings(session.processor) if image else "")
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def pixel_settings(processor: Any) -> str:
    """Return the settings of the image preprocessing as JSON, for hashes."""
    return str(processor.image_processor.to_json_string())


def weights_hash(session: Session) -> str:
    """Return a hash of the reference weights (without adapters) and of steering."""
    digest = hashlib.sha256()
    for name, weight in sorted(session.model.state_dict().items()):
        if ".lora_" not in name:
            digest.update(name.replace("base_model.model.", "").replace(".base_layer.", ".").encode())
            for values in raw(weight):
                digest.update(values)
    digest.update("".join(hashes(session.model)).encode())
    return digest.hexdigest()


class StartLogits:
    """Reference logits at the answer positions of a batch, optionally with an instruction.

    To be made before training. `teacher`: "cached" computes the inputs of the output head ahead and keeps them, "live"
    runs the reference model each time (a frozen copy under full tuning), "auto" = cached if `CACHE_BYTES` allow it for all
    targets. The plain engine runs a second live model each time.

    Computed ahead, because the last bits of a value depend on the other rows of its batch: computed on first use, it
    would differ in a resumed run, where a target is first used in another batch.
    """

    def __init__(
        self, session: Session, targets: Sequence[Target], *, instruction: str = "", teacher: Teacher = "auto"
    ) -> None:
        self.session = session
        self.instruction = instruction
        self.room = CACHE_BYTES if teacher == "auto" else 0 if teacher == "live" else 2**63
        self._outputs: dict[tuple[object, ...], tuple[Tensor, Tensor]] = {}
        frozen_base = isinstance(session.model, PeftModel) and processes.sharding() == "none"
        self._model = session.model
        if not session.engine.reference:
            self.room, self._model = 0, _second(session.model)
            return
        self.head = _Head(session.model, frozen_base=frozen_base)
        if not self._keep_all(targets):
            self.room = 0
            self._model = session.model if frozen_base else _second(session.model)

    def __call__(self, targets: Sequence[Target], labels_ba: Tensor) -> Tensor:
        """Return logits_bav for these targets, aligned with the student's labels.

        Raises TrainingError if teacher and student disagree about the answer tokens of a sample (PUBG, arXiv 2506.02541).
        """
        missing_targets = [target for target in targets if target.key not in self._outputs]
        if not missing_targets or self._keep(missing_targets):
            cached_outputs = [self._outputs[target.key] for target in targets]
            _require_equal(targets, labels_ba, [labels_a for _, labels_a in cached_outputs])
            return self.head.logits(_right_aligned([states for states, _ in cached_outputs], labels_ba))
        with as_start(self._model):
            logits_bav, teacher_labels_ba = answer_logits(self._model, self._batch(targets))
        pairs = _split(logits_bav, teacher_labels_ba)
        _require_equal(targets, labels_ba, [labels_a for _, labels_a in pairs])
        return _right_aligned([logits for logits, _ in pairs], labels_ba)

    def _batch(self, targets: Sequence[Target]) -> Batch:
        prompted_targets = [
            replace(target, instruction=served(self.session, self.instruction or target.instruction))
            for target in targets
        ]
        return collate(self.session, prompted_targets)

    def _keep_all(self, targets: Sequence[Target]) -> bool:
        """Cache the outputs of all targets, or nothing and return False if they do not fit."""
        distinct_targets = list({target.key: target for target in targets}.values())
        limit = self.room
        with autocast(self._model, self.session.training):
            for start in range(0, len(distinct_targets), CHUNK):
                chunk = distinct_targets[start : start + CHUNK]
                share = (start + len(chunk)) / len(distinct_targets)
                if not self._keep(chunk) or limit - self.room > limit * share:  # the others would not fit either
                    self._outputs = {}
                    return False
        return True

    def _keep(self, targets: Sequence[Target]) -> bool:
        """Cache the teacher outputs of these targets, and return False if there is no room."""
        if self.room <= 0:
            return False
        with as_start(self._model):
            pairs = _split(*self.head.states(self._model, self._batch(targets)))
        for target, (states, labels_a) in zip(targets, pairs, strict=True):
            self._outputs[target.key] = (states.cpu().clone(), labels_a.cpu())
            self.room -= states.nbytes
        return True


class _Head:
    """Output head of the reference model, with its input states."""

    def __init__(self, model: Module, *, frozen_base: bool) -> None:
        self.module: Module = unwrapped(model).get_output_embeddings()
        self.start: Module = self.module if frozen_base else copy.deepcopy(self.module).requires_grad_(False)
        self.plain: bool | None = None
        """Whether logits are the head's output unchanged (no cap or scale); None = unknown."""

    def states(self, model: Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return states_bad at answer tokens (logits_bav if the head is not all), and labels."""
        head_inputs: list[Tensor] = []

        def note(_: Module, args: tuple[Tensor, ...]) -> None:
            if not trying():
                head_inputs.append(args[0].detach())

        if batch.engine.shared_prefix:  # packed rows would put states elsewhere than their logits
            batch = replace(batch, engine=replace(batch.engine, shared_prefix=False))
        with self.module.register_forward_pre_hook(note):
            logits_bav, labels_ba = answer_logits(model, batch)
        if len(head_inputs) > 1:  # rows of different lengths ran in separate batches
            return in_order(
                [indices for indices, _ in batch.parts], [self.states(model, part) for _, part in batch.parts]
            )
        states_bad = head_inputs[0][:, -labels_ba.shape[1] - 1 : -1]
        if self.plain is None:
            self.plain = torch.allclose(self.start(states_bad), logits_bav, rtol=1e-3, atol=1e-3)
        return (states_bad if self.plain else logits_bav), labels_ba

    def logits(self, states_bad: Tensor) -> Tensor:
        """Return logits_bav of cached states."""
        with torch.no_grad():
            return self.start(states_bad) if self.plain else states_bad


def _second(model: Module) -> Module:
    """Return a frozen second copy of the model, in eval mode."""
    return copy.deepcopy(model).requires_grad_(False).eval()


def _split(values_bax: Tensor, labels_ba: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return values and labels of each sample without padding."""
    starts = (labels_ba.shape[1] - (labels_ba != IGNORE).sum(-1)).tolist()
    return [(values_bax[i, start:], labels_ba[i, start:]) for i, start in enumerate(starts)]


def _right_aligned(rows: Sequence[Tensor], labels_ba: Tensor) -> Tensor:
    """Return the rows right-aligned in a tensor as wide as the labels, zero-padded."""
    width = labels_ba.shape[1]
    values_bax = rows[0].new_zeros(len(rows), width, rows[0].shape[-1])
    for row, values_ax in zip(values_bax, rows, strict=True):
        row[width - len(values_ax) :] = values_ax
    return values_bax.to(labels_ba.device)


def _require_equal(targets: Sequence[Target], student_ba: Tensor, teacher_rows: Sequence[Tensor]) -> None:
    """Raise unless student and teacher have the same supervised ids per sample."""
    for target, student_a, teacher_a in zip(targets, student_ba.cpu(), teacher_rows, strict=True):
        if not torch.equal(student_a[student_a != IGNORE], teacher_a.cpu()):
            raise TrainingError(
                f"Teacher and student see different answer tokens for example {target.example.id!r}: the response "
                "must be passed as token ids and be the same for both."
            )
