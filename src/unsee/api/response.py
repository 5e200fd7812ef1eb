"""Responses and scores as plain records, without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from unsee.api.example import Example, Kind, Question, Role
from unsee.errors import short_repr


@dataclass(frozen=True, kw_only=True)
class Response(Question):
    """A question with one generated response (a row of responses.jsonl).

    It holds everything needed to rescore the response.
    """

    stage: str
    """Model that generated it: "original", "gold" or the method's name."""
    text: str
    """Generated text without special tokens. Untrusted."""
    tokens: int
    """Number of generated tokens, EOS included."""
    ended: bool
    """Whether generation ended with EOS."""
    image: str = ""
    """Path of the image relative to the folder of responses.jsonl; empty for text-only questions."""
    image_key: str = ""
    logprob: float | None = None
    """Log-probability of the reference answer given the question, EOS included; None if not computed."""
    logprob_tokens: int = 0
    """Number of tokens it sums over."""
    option_logprobs: tuple[float, ...] = ()
    """Mean token log-probability of each option, of its text or its letter, whichever is higher."""
    true_logprob: float | None = None
    """Mean token log-probability of the paraphrase (or answer), EOS included; computed with `perturbed` only."""
    perturbed_logprobs: tuple[float, ...] = ()
    """The same for each false answer."""
    clip: float | None = None
    """CLIPScore of text and image; None if not computed."""

    @classmethod
    def of(
        cls, example: Example, *, stage: str, text: str, tokens: int, ended: bool, image: str = "", image_key: str = ""
    ) -> Response:
        """Return the record of the response `text` to `example`.

        Args:
            example: Question that was asked.
            stage: Model that generated it: "original", "gold" or the method's name.
            text: Generated text without special tokens.
            tokens: Number of generated tokens, EOS included.
            ended: Whether generation ended with EOS.
            image: Path of the image relative to the folder of responses.jsonl; empty for text-only questions.
            image_key: Content hash of the image.
        """
        question = {part.name: getattr(example, part.name) for part in fields(Question)}
        return cls(**question, stage=stage, text=text, tokens=tokens, ended=ended, image=image, image_key=image_key)

    @property
    def finite(self) -> bool:
        """Whether all its measured numbers are finite."""
        numbers = (self.logprob, self.true_logprob, self.clip, *self.option_logprobs, *self.perturbed_logprobs)
        return all(math.isfinite(number) for number in numbers if number is not None)

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict for json.dumps."""
        return {**vars(self), "private": dict(self.private), "visible": dict(self.visible)}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Response:
        """Read a row written by `to_json`."""
        if not isinstance(row, Mapping) or not isinstance(row.get("text"), str):
            raise TypeError(f"expected a row with an answer as text, got {short_repr(row)}")
        values = dict(row)
        values["role"] = Role(values["role"])
        values["kind"] = Kind(values["kind"])
        values["private"] = {fact: tuple(forms) for fact, forms in values["private"].items()}
        for name in ("options", "accepted", "option_logprobs", "perturbed", "perturbed_logprobs"):
            values[name] = tuple(values.get(name, ()))
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class Score:
    """One metric over one group of responses."""

    value: float | None
    """Mean; None if nothing could be scored (see `why`)."""
    n: int
    """Number of responses scored."""
    interval: tuple[float, float] | None = None
    """95 % bootstrap interval over entities; None with fewer than two entities."""
    better: Literal["higher", "lower", "neither"] = "neither"
    value_by_index: Mapping[str, float] = field(default_factory=dict)
    """Response id -> value."""
    why: str = ""

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Score:
        """Return the score that `to_json` made the dict of."""
        interval = row["interval"]
        return cls(**{**row, "interval": None if interval is None else tuple(interval)})

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict for json.dumps."""
        return {**vars(self), "value_by_index": dict(self.value_by_index)}
