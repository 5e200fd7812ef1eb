"""PROMPT: the original model under a privacy instruction (arXiv 2506.02541) [inferred]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from unsee.api import Group, Method, Needs, Session
from unsee.errors import UserError
from unsee.methods.common.guidance import INSTRUCTION
from unsee.methods.common.instructions import joined


@dataclass(frozen=True, kw_only=True)
class Prompt(Method):
    """Prepend an instruction to every question at inference. Weights stay unchanged."""

    group: ClassVar[Group] = "steering"

    instruction: str = INSTRUCTION
    """Text that precedes every question, after that of an earlier request if the model has one."""

    def __post_init__(self) -> None:
        """Reject an empty instruction, which would change nothing."""
        super().__post_init__()
        if not self.instruction.strip():
            raise UserError(
                "method.instruction must be a text of at least one word; an empty one would change nothing."
            )

    def needs(self) -> Needs:
        """Return the memory requirements of a step."""
        return Needs(trains=False)

    def unlearn(self, session: Session) -> None:
        """Add the instruction to the session's."""
        session.instruction = joined(session.instruction, self.instruction)
        session.notes.update(steps=0, epochs=0, trainable=0, stop_reason="no training")
