"""Questions for a model, and what comes back: requests, targets, sampling and decoding settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from unsee.api import Example, ImageSource
from unsee.errors import UserError


@dataclass(frozen=True)
class Request:
    """One question to be answered."""

    question: str
    image: ImageSource | None = None
    instruction: str = ""


@dataclass(frozen=True)
class Generated:
    """One answer."""

    text: str
    """Special tokens removed, blanks at both ends stripped."""
    token_ids: tuple[int, ...]
    """What was generated, EOS excluded."""
    ended: bool
    """Whether the model stopped by itself (with EOS)."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How to draw tokens."""

    temperature: float = 1.0
    """Logits are divided by it."""
    top_p: float = 1.0
    """Smallest set of tokens with this much probability; 1 = all."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn from."""
        if self.temperature <= 0 or not 0 < self.top_p <= 1:
            raise UserError(
                f"Sampling needs temperature > 0 and 0 < top_p <= 1, got {self.temperature} and {self.top_p}; "
                "for temperature 0 use greedy decoding."
            )


@dataclass(frozen=True, kw_only=True)
class Target:
    """A question and what the model is to be pushed to, or away from, answering."""

    example: Example
    text: str | None = None
    """Answer text; None = `token_ids` or, without them, the example's own answer."""
    token_ids: tuple[int, ...] | None = None
    """Answer as token ids without EOS; generated answers are passed on like this, never re-tokenised."""
    ended: bool = True
    """Whether the answer ends with EOS; False for answers cut at the length limit."""
    instruction: str = ""
    """Text before the question, in the same user turn."""

    @property
    def key(self) -> tuple[object, ...]:
        """Hashable identity of what is asked and answered."""
        return (self.example.id, self.example.question, self.text, self.token_ids, self.ended, self.instruction)


Backend = Literal["hf", "vllm"]
Values = dict[str, Any]
"""Fields of a response that come from the model."""


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How answers are generated (always greedy); part of every key but for the batch size."""

    max_new_tokens: int
    batch_size: int
    seed: int
    backend: Backend = "hf"

    def facts(self) -> list[Any]:
        """Return what an answer depends on."""
        return [self.max_new_tokens, self.seed, *([self.backend] if self.backend != "hf" else [])]
