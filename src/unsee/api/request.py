"""Prompts and completions: targets, sampling, decoding settings, backends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from unsee.api import Example, Family, ImageSource
from unsee.errors import UserError


@dataclass(frozen=True)
class Prompt:
    """A question that is put to a model."""

    question: str
    image: ImageSource | None = None
    instruction: str = ""
    """Text that precedes the question in the same user turn."""

    @classmethod
    def of(cls, example: Example, instruction: str = "") -> Prompt:
        """Return the prompt of an example."""
        return cls(example.question, example.image, instruction)


@dataclass(frozen=True)
class Completion:
    """What a model generated for a prompt."""

    text: str
    """Decoded text without special tokens, stripped."""
    token_ids: tuple[int, ...]
    """Generated token ids without EOS."""
    ended: bool
    """Whether generation ended with EOS."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Sampling settings."""

    temperature: float = 1.0
    """Divisor of the logits."""
    top_p: float = 1.0
    """Nucleus: smallest token set with this probability mass; 1 = all."""

    def __post_init__(self) -> None:
        """Reject settings that define no distribution."""
        if self.temperature <= 0 or not 0 < self.top_p <= 1:
            raise UserError(
                f"Sampling needs temperature > 0 and 0 < top_p <= 1, got {self.temperature} and {self.top_p}; "
                "for temperature 0 use greedy decoding."
            )


@dataclass(frozen=True, kw_only=True)
class Target:
    """Question with the completion that is trained towards or away from."""

    example: Example
    text: str | None = None
    """Completion text; None = `token_ids` or, without them, the example's own answer."""
    token_ids: tuple[int, ...] | None = None
    """Completion as token ids without EOS; generated completions are passed on without re-tokenisation."""
    ended: bool = True
    """Whether the completion ends with EOS; False if it was cut at the length limit."""
    instruction: str = ""
    """Text that precedes the question in the same user turn."""

    @property
    def prompt(self) -> Prompt:
        """Return the prompt of the example."""
        return Prompt.of(self.example, self.instruction)

    @property
    def key(self) -> tuple[object, ...]:
        """Return a hashable identity of prompt and completion."""
        return (self.example.id, self.example.question, self.text, self.token_ids, self.ended, self.instruction)


Backend = Literal["hf", "vllm"]
Values = dict[str, Any]
"""Fields of a response that come from the model."""


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """Greedy decoding settings, part of every cache key except for the batch size."""

    max_new_tokens: int
    batch_size: int
    seed: int
    backend: Backend = "hf"

    def facts(self) -> list[Any]:
        """Return the settings that a response depends on."""
        return [self.max_new_tokens, self.seed, *([self.backend] if self.backend != "hf" else [])]


class ModelBackend(Protocol):
    """Interface of a model backend."""

    @property
    def processor(self) -> Any:
        """Processor."""
        ...

    @property
    def family(self) -> Family:
        """Model family."""
        ...

    @property
    def instruction(self) -> str:
        """Text that precedes every question."""
        ...

    @property
    def weights(self) -> str:
        """Hash of the weights."""
        ...

    @property
    def setup(self) -> str:
        """Hash of all else that answers depend on, unless `weights` has it."""
        ...

    def say(self, requests: Sequence[Prompt], decoding: Decoding, label: str) -> list[Completion]:
        """Generate responses."""
        ...

    def measure(self, asked: Sequence[tuple[Prompt, Example]], batch_size: int, label: str) -> list[Values]:
        """Return log-probabilities of reference answers and options."""
        ...
