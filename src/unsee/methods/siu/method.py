"""SIU, Single Image Unlearning (arXiv 2405.12523): four targets, dual-masked KL.

Settings marked [second-hand] are the paper's as others report them, [code] the released ones, [inferred] ours.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from peft import PeftModel
from torch import Tensor

from unsee.api import Method, Needs, Promise, Session, Training
from unsee.api.training import Tune
from unsee.errors import UserError
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import Batch
from unsee.losses import IGNORE, dual_masked_kl, released_masked_cross, token_logprobs
from unsee.methods.common.published import require_unset
from unsee.methods.common.reference_model import StartLogits, Teacher, as_start
from unsee.methods.siu.names import NameTokens, name_tokens
from unsee.methods.siu.targets import Concept, KeptTokens, Recipe, Row, build_siu_rows
from unsee.training.targets import retain_targets
from unsee.training.trainer import Objective, Parts, minimise, plan_batches, retain_term
from unsee.utils.terminal import note_once


@dataclass(frozen=True, kw_only=True)
class SIU(Recipe, Method):
    """L = alpha * CE + beta * dual-masked KL, on four targets from one image per concept."""

    promise: ClassVar[Promise] = "picture"

    mode: Literal["paper", "as_released"] = "paper"
    """paper = the formula; as_released = the released trainer, whose KL is some |V| times too small (arXiv 2405.12523), with weights
    of 1; it refuses alpha, beta, reduction and teacher."""
    alpha: float = 0.9
    """Weight of the cross-entropy [second-hand]; as_released has 1 [code]."""
    beta: float = 0.75
    """Weight of the dual-masked KL [second-hand]; as_released has 1 [code]."""
    steps: int = 6
    """Most optimiser steps per concept, of batches of 4 [second-hand]; 0 = as many as `training` says."""
    reduction: Literal["mean", "sum"] = "mean"
    """Of the KL over kept tokens: mean [inferred], or the sum printed in the paper [second-hand]."""
    retain_weight: float = 0.0
    """Weight of the cross-entropy on the retain answers; 0 = the paper's form."""
    retain_ratio: int = 1
    """Retain answers per row, with `retain_weight`; the few steps on one image cover few other people otherwise [inferred]."""
    teacher: Teacher = "auto"
    """Source of reference logits: kept in memory, recomputed, or as memory allows."""

    def __post_init__(self) -> None:
        """Reject values that no run could use."""
        super().__post_init__()
        for name, minimum in (("steps", 0), ("rows", 1), ("image", 0), ("retain_ratio", 1), ("beta", 0)):
            if getattr(self, name) < minimum:
                raise UserError(f"method.{name} must be at least {minimum}, got {getattr(self, name)}.")
        if self.mode == "as_released":
            require_unset(self, "method", ("alpha", "beta", "reduction", "teacher"))

    def needs(self) -> Needs:
        """Return the memory requirements of a step."""
        return Needs(retain=self.retain_ratio if self.retain_weight else 0, teacher=True)

    def idle(self, training: Training) -> Iterator[tuple[str, str]]:  # noqa: ARG002 - the contract
        """Yield the settings without effect beside the others."""
        if not self.retain_weight:
            yield "method.retain_ratio", "with method.retain_weight above 0"
        if not self.beta:
            for name in ("reduction", "teacher"):
                yield f"method.{name}", "with method.beta above 0"

    def tunes(self) -> tuple[Tune, ...]:
        """Return the ways of tuning: the published code turns adapters off for its reference."""
        return ("lora",) if self.mode == "as_released" else self.trial.tunes

    def unlearn(self, session: Session) -> None:
        """Build the rows and minimise the two terms on them."""
        retain = retain_targets(session, self.retain_weight)
        concepts, rows = build_siu_rows(session, self)
        name_mask = name_tokens(session.processor, [name for concept in concepts for name in concept.names])
        session.notes["siu"] = _facts(concepts, rows, name_mask)
        targets, limit = [row.target for row in rows], self.steps * len(concepts)
        if 0 < limit < plan_batches(session, targets, retain, self.retain_ratio).steps:
            if limit < session.training.max_steps:
                note_once(
                    f"training.max_steps={session.training.max_steps} has no effect: method.steps={self.steps} ends after {limit} steps. "
                    "Set method.steps=0 to train as long as training says."
                )
            session.training = replace(session.training, max_steps=limit)
        if self.steps != SIU.steps and 0 <= session.training.max_steps < limit:
            note_once(
                f"method.steps={self.steps} has no effect: training.max_steps={session.training.max_steps} ends before its {limit} steps."
            )
        objective = (
            self._released_objective(session, rows, name_mask)
            if self.mode == "as_released"
            else self._paper(session, rows, name_mask)
        )
        minimise(session, objective, forget=targets, retain=retain, retain_ratio=self.retain_ratio)

    def _paper(self, session: Session, rows: Sequence[Row], name_mask: NameTokens) -> Objective:
        """Return both terms on aligned answer tokens, the KL as a mean over kept tokens."""
        token_mask = KeptTokens(session, rows)
        start = StartLogits(session, [row.target for row in rows], teacher=self.teacher)

        def objective(forget: Batch, retain: Batch | None) -> Iterator[Parts]:
            logits_bav, labels_ba = answer_logits(session.model, forget)
            teacher_bav, kept_ba = start(forget.targets, labels_ba), token_mask(forget.targets, labels_ba)
            kl = dual_masked_kl(teacher_bav, logits_bav, kept_ba, name_mask.allowed_tokens(logits_bav), self.reduction)
            ce = _token_nll(logits_bav, labels_ba)
            yield {"loss": self.alpha * ce + self.beta * kl, "ce": ce, "masked_kl": kl}
            yield from retain_term(session, retain, self.retain_weight)

        return objective

    def _released_objective(self, session: Session, rows: Sequence[Row], name_mask: NameTokens) -> Objective:
        """Return both terms of the released trainer, with its misalignment and normaliser."""
        if not isinstance(session.model, PeftModel):
            raise UserError(
                "method.mode=as_released needs training.tune=lora, as released; the original model is adapters off."
            )
        warnings.warn(
            "siu with mode=as_released: the KL is divided by the size of the vocabulary and so does next to nothing; "
            "training is cross-entropy alone. For comparison with published numbers only.",
            stacklevel=3,
        )
        phrases = {row.target.key: _phrase(session, row) for row in rows}

        def objective(forget: Batch, retain: Batch | None) -> Iterator[Parts]:
            released_rows = [
                _released_row(session, forget.only([index]), phrases[forget.targets[index].key])
                for index in range(len(forget.targets))
            ]
            ce = torch.cat([row.nll_a for row in released_rows]).mean()
            teacher_bav = torch.cat([row.teacher_tv for row in released_rows])[None]
            student_bav = torch.cat([row.student_tv for row in released_rows])[None]
            kept_ba = torch.cat([row.kept_t for row in released_rows])[None]
            kl = released_masked_cross(teacher_bav, student_bav, kept_ba, name_mask.allowed_tokens(student_bav))
            yield {"loss": ce + kl, "ce": ce, "masked_kl": kl}
            yield from retain_term(session, retain, self.retain_weight)

        return objective


@dataclass(frozen=True)
class _Whole:
    """Row as in the released trainer: every text position, logits unshifted."""

    student_tv: Tensor
    teacher_tv: Tensor
    kept_t: Tensor
    nll_a: Tensor
    """Negative log-likelihood of each answer token."""


def _released_row(session: Session, row: Batch, phrase: Sequence[int]) -> _Whole:
    """Return one row in released form: token-match mask without image tokens, cut logits.

    Padding, which the released trainer counts as well, is left out: rows go through the model one by one.
    """
    student_btv = session.model(**row.inputs, use_cache=False).logits
    with as_start(session.model):
        teacher_btv = session.model(**row.inputs, use_cache=False).logits
    text_ids = _unexpanded(row.inputs["input_ids"][0].tolist(), session.processor.image_token_id)
    phrase_indices = {index + offset for index in _matches(text_ids, phrase) for offset in range(len(phrase))}
    kept_t = torch.tensor([index not in phrase_indices for index in range(len(text_ids))], device=student_btv.device)
    logp_ba = token_logprobs(student_btv[:, :-1], row.labels_bt[:, 1:])
    return _Whole(
        student_btv[0, : len(text_ids)],
        teacher_btv[0, : len(text_ids)],
        kept_t,
        -logp_ba[row.labels_bt[:, 1:] != IGNORE],
    )


def _phrase(session: Session, row: Row) -> list[int]:
    """Return the ids of the released `target_phrase`: substitute, whole answer, or "none"."""
    text = max((row.target.example.answer[start:end] for start, end in row.spans), key=len, default="none")
    ids: list[int] = session.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _unexpanded(token_ids: Sequence[int], image_id: int) -> list[int]:
    """Return the ids with one placeholder per image."""
    return [
        token
        for index, token in enumerate(token_ids)
        if token != image_id or index == 0 or token_ids[index - 1] != image_id
    ]


def _matches(token_ids: Sequence[int], phrase: Sequence[int]) -> list[int]:
    """Return the indices at which the phrase begins."""
    size = len(phrase)
    return [
        index
        for index in range(len(token_ids) - size + 1)
        if size and list(token_ids[index : index + size]) == list(phrase)
    ]


def _token_nll(logits_bav: Tensor, labels_ba: Tensor) -> Tensor:
    """Return the cross-entropy as a mean over all answer tokens of the batch."""
    return -token_logprobs(logits_bav, labels_ba).sum() / (labels_ba != IGNORE).sum()


def _facts(concepts: Sequence[Concept], rows: Sequence[Row], name_mask: NameTokens) -> dict[str, Any]:
    """Return the record: rows per target, training images, masked entries."""
    counts = Counter(row.number for row in rows)
    return {
        "rows": {f"target_{number}": counts[number] for number in (1, 2, 3, 4)},  # type: ignore[index]
        "images": [concept.shown[0].image.key for concept in concepts if concept.shown[0].image],
        "substitutes": [concept.substitute for concept in concepts],
        "name_tokens": len(name_mask.ids),
        "dropped_pieces": list(name_mask.dropped),
    }
