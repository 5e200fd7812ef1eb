"""What an unlearning method is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unsee.api.session import Session


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """Settings of one method (its fields, the paper's defaults) and how to apply it. Abstract: one final subclass per file in methods/."""

    @abstractmethod
    def unlearn(self, session: Session) -> None:
        """Change `session.model` in place (or set `session.instruction`) so that the forget role is forgotten."""
