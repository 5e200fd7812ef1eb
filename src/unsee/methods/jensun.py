"""Bounded unlearning by Jensen-Shannon divergences (JensUn, Singh et al., arXiv 2509.02820)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from unsee.api import Method, Needs, Session, Training
from unsee.errors import UserError
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import Batch
from unsee.losses import IGNORE, js_to_token, per_sample, token_js
from unsee.methods.common.idle import idle_term
from unsee.methods.common.reference_model import StartLogits, Teacher
from unsee.training.targets import forget_targets, retain_targets
from unsee.training.trainer import Parts, minimise, plan_batches


@dataclass(frozen=True, kw_only=True)
class JensUn(Method):
    """Train the forget positions towards a short refusal, and hold the retain positions to the reference model."""

    refusal: str = "No idea"
    """Text whose tokens are repeated over the positions of every forget answer [inferred]."""
    forget_weight: float = 1.0
    """Weight of the divergence from the refusal."""
    retain_weight: float = 1.0
    """Weight of the divergence from the reference model on the retain answers; 0 = none."""
    teacher: Teacher = "auto"
    """Source of reference logits: kept in memory, recomputed, or as memory allows."""

    def __post_init__(self) -> None:
        """Reject an empty refusal."""
        super().__post_init__()
        if not self.refusal.strip():
            raise UserError("method.refusal must be a text of at least one word.")

    def needs(self) -> Needs:
        """Return the memory requirements of a step."""
        return Needs(retain=int(bool(self.retain_weight)), teacher=bool(self.retain_weight))

    def idle(self, training: Training) -> Iterator[tuple[str, str]]:  # noqa: ARG002 - the contract
        """Yield the settings without effect beside the others."""
        yield from idle_term(self.forget_weight, "forget_weight", ("refusal",))
        yield from idle_term(self.retain_weight, "retain_weight", ("teacher",))

    def unlearn(self, session: Session) -> None:
        """Minimise both divergences."""
        targets, retain_answers = forget_targets(session), retain_targets(session, self.retain_weight)
        tokenizer = session.processor.tokenizer
        ids = torch.tensor(tokenizer(self.refusal, add_special_tokens=False)["input_ids"])
        start = (
            StartLogits(session, plan_batches(session, targets, retain_answers).met(), teacher=self.teacher)
            if retain_answers
            else None
        )

        def objective(forget: Batch, retain: Batch | None) -> Iterator[Parts]:
            logits_bav, labels_ba = answer_logits(session.model, forget)
            position_ba = ((labels_ba != IGNORE).cumsum(-1) - 1).clamp_min(0)
            refusal_ba = ids.to(labels_ba.device)[position_ba % len(ids)].masked_fill(labels_ba == IGNORE, IGNORE)
            refusal_js = per_sample(js_to_token(logits_bav, refusal_ba), labels_ba).mean()
            yield {"loss": self.forget_weight * refusal_js, "refusal_js": refusal_js}
            if retain is not None and start is not None:
                logits_bav, labels_ba = answer_logits(session.model, retain)
                retain_js = per_sample(token_js(start(retain.targets, labels_ba), logits_bav), labels_ba).mean()
                yield {"loss": self.retain_weight * retain_js, "retain_js": retain_js}

        minimise(session, objective, forget=targets, retain=retain_answers)
