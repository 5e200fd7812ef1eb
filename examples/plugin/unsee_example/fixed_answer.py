"""Fixed answer: train every forget question on one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from unsee.api import Method, Session
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import Batch
from unsee.losses import answer_nll
from unsee.training.targets import forget_targets
from unsee.training.trainer import Parts, minimise


@dataclass(frozen=True, kw_only=True)
class FixedAnswer(Method):
    """Lower the cross-entropy of one fixed sentence after every forget question."""

    sentence: str = "I do not know."
    """What the model is to say instead of the answer."""

    def unlearn(self, session: Session) -> None:
        """Train on the sentence."""
        targets = [replace(target, text=self.sentence) for target in forget_targets(session)]

        def objective(forget: Batch, _: Batch | None) -> Iterator[Parts]:
            yield {"loss": answer_nll(*answer_logits(session.model, forget))}

        minimise(session, objective, forget=targets)
