"""REJECT (PO, IDK): train on refusals (arXiv 2506.02541, RWKU `run_rt_lora.sh`, TOFU)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from unsee.api import Method, Session, Training
from unsee.errors import UserError
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import Batch
from unsee.losses import IGNORE, answer_nll
from unsee.methods.common.prompt_decouple import Pairing, decouple_partners, decouple_term, idle_pairing
from unsee.methods.common.refusal_targets import refusal_targets
from unsee.training.targets import retain_targets
from unsee.training.trainer import Parts, minimise, required, retain_term


@dataclass(frozen=True, kw_only=True)
class Reject(Method):
    """Cross-entropy on a refusal, drawn once per example."""

    refusals: str = ""
    """Text file with one refusal per line, or SafeEraser's prompt.json; empty = the built-in list."""
    retain_weight: float = 0.0
    """Weight of the cross-entropy on the retain answers."""
    po_reduction: Literal["mean_of_means", "concat"] = "mean_of_means"
    """mean_of_means = each side has its own mean [inferred]; concat = one mean over the tokens of both, so that the longer side weighs more, as SafeEraser's trainer [code]."""
    prompt_decouple_weight: float = 0.0
    """Weight of Prompt Decouple, the cross-entropy on the normal answers of role benign; 0 = off, SafeEraser: 1 [code]."""
    prompt_decouple_pairing: Pairing = "paired"
    """paired = the harmless image of the same entity and question [inferred], random = any, as SafeEraser's trainer [code]."""

    def __post_init__(self) -> None:
        """Reject settings that contradict each other."""
        super().__post_init__()
        if self.po_reduction == "concat" and not self.retain_weight:
            raise UserError("po_reduction=concat joins refusals and retain answers; set retain_weight (SafeEraser: 1).")

    def idle(self, training: Training) -> Iterator[tuple[str, str]]:  # noqa: ARG002 - the contract
        """Yield the settings without effect beside the others."""
        yield from idle_pairing(self.prompt_decouple_weight)

    def unlearn(self, session: Session) -> None:
        """Minimise the cross-entropy on refusals."""
        targets = refusal_targets(session, self.refusals)
        partners = decouple_partners(session, targets, self.prompt_decouple_weight, self.prompt_decouple_pairing)

        def objective(forget: Batch, retain: Batch | None) -> Iterator[Parts]:
            if self.po_reduction == "concat":
                yield from _concatenated_loss(session, forget, required(retain), self.retain_weight)
            else:
                refusal_nll = answer_nll(*answer_logits(session.model, forget))
                yield {"loss": refusal_nll, "refusal_nll": refusal_nll}
                yield from retain_term(session, retain, self.retain_weight)
            yield from decouple_term(session, forget, partners, self.prompt_decouple_weight)

        minimise(session, objective, forget=targets, retain=retain_targets(session, self.retain_weight))


def _concatenated_loss(session: Session, forget: Batch, retain: Batch, retain_weight: float) -> Iterator[Parts]:
    """Yield the two parts of one mean over the answer tokens of both batches."""
    sides = (("refusal_nll", forget, 1.0), ("retain_nll", retain, retain_weight))
    counts = [int((batch.labels_bt != IGNORE).sum()) for _, batch, _ in sides]
    for (name, batch, weight), count in zip(sides, counts, strict=True):
        logits_bav, labels_ba = answer_logits(session.model, batch)
        total = answer_nll(logits_bav, labels_ba, "sequence_sum") * len(batch.targets)
        yield {"loss": weight * total / sum(counts), name: total / count}
