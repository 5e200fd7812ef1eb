"""Responses and scores as plain records, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from unsee.api.example import Example, Kind, Role
from unsee.errors import shown


@dataclass(frozen=True, kw_only=True)
class Response:
    """One generated response with everything needed to rescore it (a row of responses.jsonl)."""

    id: str
    stage: str
    """Model that generated it: "original", "gold" or the method's name."""
    role: Role
    kind: Kind
    fact: str
    entity: str
    question: str
    answer: str
    """The reference answer."""
    text: str
    """Generated text without special tokens. Untrusted."""
    tokens: int
    """Number of generated tokens, EOS included."""
    ended: bool
    """Whether generation ended with EOS."""
    image: str = ""
    """Path of the image relative to the folder of responses.jsonl; empty for text-only questions."""
    image_key: str = ""
    private: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    visible: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    chain: str = ""
    logprob: float | None = None
    """Log-probability of the reference answer given the question, EOS included; None if not computed."""
    logprob_tokens: int = 0
    """Number of tokens it sums over."""
    option_logprobs: tuple[float, ...] = ()
    """Mean token log-probability of each option, of its text or its letter, whichever is higher."""
    paraphrase: str = ""
    perturbed: tuple[str, ...] = ()
    """False answers of the same form as the true one."""
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
        """Return the record of the response `text` to `example`."""
        return cls(
            id=example.id,
            stage=stage,
            role=example.role,
            kind=example.kind,
            fact=example.fact,
            entity=example.entity,
            question=example.question,
            answer=example.answer,
            text=text,
            tokens=tokens,
            ended=ended,
            image=image,
            image_key=image_key,
            private=dict(example.private),
            visible=dict(example.visible),
            options=example.options,
            chain=example.chain,
            paraphrase=example.paraphrase,
            perturbed=example.perturbed,
        )

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict for json.dumps."""
        return {**vars(self), "private": dict(self.private), "visible": dict(self.visible)}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Response:
        """Read a row written by `to_json`."""
        if not isinstance(row, Mapping) or not isinstance(row.get("text"), str):
            raise TypeError(f"expected a row with an answer as text, got {shown(row)}")
        fields = dict(row)
        fields["role"] = Role(fields["role"])
        fields["kind"] = Kind(fields["kind"])
        fields["private"] = {fact: tuple(forms) for fact, forms in fields["private"].items()}
        for name in ("options", "option_logprobs", "perturbed", "perturbed_logprobs"):
            fields[name] = tuple(fields.get(name, ()))
        return cls(**fields)


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
