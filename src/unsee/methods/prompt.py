"""PROMPT: the original model under the privacy instruction, without training; PUBG's teacher (PUBG, arXiv 2506.02541) [inferred]."""

from __future__ import annotations

from dataclasses import dataclass

from unsee.api import Method, Needs, Session
from unsee.methods.common.guidance import INSTRUCTION


@dataclass(frozen=True, kw_only=True)
class Prompt(Method):
    """Put an instruction before every question at inference time; the weights stay as they are, and can be asked again."""

    instruction: str = INSTRUCTION
    """Text put before every question."""

    def needs(self) -> Needs:
        """Return what a step holds."""
        return Needs(trains=False)

    def unlearn(self, session: Session) -> None:
        """Set the session's instruction."""
        session.instruction = self.instruction
        session.notes.update(steps=0, epochs=0, trainable=0, stop_reason="no training")
