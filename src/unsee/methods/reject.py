"""REJECT (PO, IDK): train on refusals in place of the forget answers (pubg.md 6; RWKU `run_rt_lora.sh`, TOFU)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from unsee.api import Method, Session
from unsee.batching import Batch, answer_logits
from unsee.errors import UserError
from unsee.generation import seed_of
from unsee.losses import answer_nll
from unsee.refusals import refusals
from unsee.targets import forget_targets, retain_targets
from unsee.training import Parts, minimise, retain_term


@dataclass(frozen=True, kw_only=True)
class Reject(Method):
    """Cross-entropy on a refusal, drawn once for each example."""

    refusals: str = ""
    """Text file with one refusal a line; empty = the packaged list."""
    retain_weight: float = 0.0
    """Weight of the cross-entropy on the retain answers."""

    def unlearn(self, session: Session) -> None:
        """Minimise the cross-entropy on refusals."""
        sentences = _read(Path(self.refusals)) if self.refusals else refusals()
        targets = [
            replace(target, text=sentences[seed_of(session.seed, "refusal", target.example.id) % len(sentences)])
            for target in forget_targets(session)
        ]

        def objective(forget: Batch, retain: Batch | None) -> Iterator[Parts]:
            refusal_nll = answer_nll(*answer_logits(session.model, forget))
            yield {"loss": refusal_nll, "refusal_nll": refusal_nll}
            yield from retain_term(session, retain, self.retain_weight)

        minimise(session, objective, forget=targets, retain=retain_targets(session, self.retain_weight))


def _read(path: Path) -> tuple[str, ...]:
    """Return the lines of a user's list, stripped, empty ones left out."""
    if not path.is_file():
        raise UserError(f"method.refusals names no file: {path}. Give a text file with one refusal a line.")
    lines = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    if not lines:
        raise UserError(f"The list of refusals {path} is empty; write one refusal a line.")
    return lines
