"""The model before unlearning, without a second live copy where one can be avoided.

LoRA: the same model with its adapters off. Full tuning: what the start model says about the targets is computed once,
before training, and kept; only if full-vocabulary logits would not fit in memory is a frozen copy made.
Shapes: b batch, a answer positions (right-aligned), v vocabulary.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any, Literal

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn import Module

from unsee.api import Session
from unsee.batching import Target, answer_logits, answer_logprob, collate, target_ids
from unsee.errors import TrainingError
from unsee.generation import evaluating
from unsee.padding import IGNORE

CACHE_BYTES = 512 * 2**20
"""Full-vocabulary logits kept in memory at most."""
CHUNK = 32
"""Targets per forward pass when the start model's answers are computed ahead."""

Teacher = Literal["auto", "live", "cached"]


@contextmanager
def as_start(model: Module) -> Iterator[None]:
    """Make the model the start model for the block: eval mode, no gradient, adapters (if any) off."""
    off: Any = model.disable_adapter() if isinstance(model, PeftModel) else nullcontext()
    with torch.no_grad(), evaluating(model), off:
        yield


def start_logprobs(session: Session, targets: Sequence[Target]) -> dict[tuple[object, ...], float]:
    """Return target key -> summed answer log-likelihood under the start model. To be called before training."""
    found: dict[tuple[object, ...], float] = {}
    with as_start(session.model):
        for start in range(0, len(targets), CHUNK):
            batch = collate(session, targets[start : start + CHUNK])
            sums = answer_logprob(session.model, batch).sum_b.tolist()
            found.update(zip((target.key for target in batch.targets), sums, strict=True))
    return found


def weights_hash(session: Session) -> str:
    """Return a hash of the start model's weights (adapters left out)."""
    digest = hashlib.sha256()
    for name, weight in sorted(session.model.state_dict().items()):
        if ".lora_" not in name:
            digest.update(name.replace("base_model.model.", "").replace(".base_layer.", ".").encode())
            digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class StartLogits:
    """Logits of the start model at the answer positions of a batch, optionally under an instruction.

    To be made before training. `teacher`: "cached" keeps every target's logits (computed when first met under LoRA,
    ahead under full tuning), "live" runs the start model each time (a frozen copy under full tuning), "auto" = cached
    if `CACHE_BYTES` allow it.
    """

    def __init__(
        self, session: Session, targets: Sequence[Target], *, instruction: str = "", teacher: Teacher = "auto"
    ) -> None:
        self.session = session
        self.instruction = instruction
        adapted = isinstance(session.model, PeftModel)
        self.cached = teacher == "cached" or (teacher == "auto" and _cache_size(session, targets) <= CACHE_BYTES)
        self._kept: dict[tuple[object, ...], tuple[Tensor, Tensor]] = {}
        self._model = session.model
        if not adapted and self.cached:
            for start in range(0, len(targets), CHUNK):
                self._keep(targets[start : start + CHUNK])
        elif not adapted:
            self._model = copy.deepcopy(session.model).requires_grad_(False)

    def __call__(self, targets: Sequence[Target], labels_ba: Tensor) -> Tensor:
        """Return logits_bav for these targets, aligned with the student's `labels_ba`.

        Raises TrainingError if teacher and student disagree about the answer tokens of a sample (pubg.md 3.4).
        """
        if self.cached:
            self._keep([target for target in targets if target.key not in self._kept])
            kept = [self._kept[target.key] for target in targets]
        else:
            kept = _split(*self._forward(targets))
        _require_equal(targets, labels_ba, [labels_a for _, labels_a in kept])
        width, vocabulary = labels_ba.shape[1], kept[0][0].shape[-1]
        logits_bav = kept[0][0].new_zeros(len(kept), width, vocabulary)
        for row, (logits_av, _) in zip(logits_bav, kept, strict=True):
            row[width - len(logits_av) :] = logits_av
        return logits_bav.to(labels_ba.device)

    def _forward(self, targets: Sequence[Target]) -> tuple[Tensor, Tensor]:
        prompted = [replace(target, instruction=self.instruction or target.instruction) for target in targets]
        with as_start(self._model):
            return answer_logits(self._model, collate(self.session, prompted))

    def _keep(self, targets: Sequence[Target]) -> None:
        if not targets:
            return
        pairs = _split(*self._forward(targets))
        for target, (logits_av, labels_a) in zip(targets, pairs, strict=True):
            self._kept[target.key] = (logits_av.float().cpu().clone(), labels_a.cpu())


def _split(logits_bav: Tensor, labels_ba: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return logits and labels of each sample, without the padding before short answers."""
    lengths = (labels_ba != IGNORE).sum(-1).tolist()
    return [(logits_bav[i, -n:], labels_ba[i, -n:]) for i, n in enumerate(lengths)]


def _cache_size(session: Session, targets: Sequence[Target]) -> int:
    """Return the bytes that all targets' answer logits would take in fp32."""
    model: Any = session.model
    distinct = {target.key: target for target in targets}.values()
    tokens = sum(len(target_ids(session.processor, session.family, target)) for target in distinct)
    return 4 * tokens * int(model.config.get_text_config().vocab_size)


def _require_equal(targets: Sequence[Target], student_ba: Tensor, teacher: Sequence[Tensor]) -> None:
    """Raise unless both see the same supervised ids in each sample."""
    for target, mine, theirs in zip(targets, student_ba.cpu(), teacher, strict=True):
        if not torch.equal(mine[mine != IGNORE], theirs.cpu()):
            raise TrainingError(
                f"Teacher and student see different answer tokens for example {target.example.id!r}: the response "
                "must be passed as token ids and be the same for both."
            )
