"""Pairs of a question with an image and as text alone (UMU-Bench, NeurIPS 2025)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from unsee.api import Kind, Response, Vocabulary
from unsee.scoring.conditions import FORGOTTEN, group_of
from unsee.scoring.values import all_of, choice_correct_of, general_correct_of, rouge_of

NAME: Final = "both"
"""Entry of `Vocabulary.measures` that enables pairs."""
IMAGE: Final = "/image"
TEXT: Final = "/text"
"""Suffixes of the ids of a pair."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One score over pairs."""

    better: Literal["higher", "lower", "neither"]
    values: dict[str, float] = field(default_factory=dict)
    """Id of the image question -> value of the pair."""
    missing: list[str] = field(default_factory=list)
    """Ids of the image questions whose pair cannot be judged."""

    @property
    def why(self) -> str:
        """Why values are missing."""
        if not self.missing:
            return ""
        return (
            f"{len(self.missing)} pairs have no score: an answer is in a script in which its reference is not given, or the "
            "reference can match nothing"
        )


def columns(responses: Sequence[Response]) -> dict[str, Column]:
    """Return `<role>.both...` -> values: right (forget: wrong) in both forms, and ROUGE-L."""
    column_by_name: dict[str, Column] = {}
    for with_image, as_text in _pairs(responses):
        to_forget = with_image.role in FORGOTTEN
        for key, value in _values(with_image, as_text):
            better: Literal["higher", "lower"] = "higher" if key.endswith(".wrong") == to_forget else "lower"
            column = column_by_name.setdefault(f"{group_of(with_image)}.{NAME}.{key}", Column(better=better))
            if value is None:
                column.missing.append(with_image.id)
            else:
                column.values[with_image.id] = value
    return column_by_name


def harmonic_mean(one: float, other: float) -> float:
    """Return the harmonic mean, high only if both are (published for the retain set [code]).

    >>> harmonic_mean(1.0, 0.5), harmonic_mean(0.0, 1.0), harmonic_mean(0.0, 0.0)
    (0.6666666666666666, 0.0, 0.0)
    """
    return 2 * one * other / (one + other) if one + other else 0.0


def contraharmonic_mean(one: float, other: float) -> float:
    """Return the contraharmonic mean, low only if both are (published, forget set [code]).

    >>> contraharmonic_mean(1.0, 0.5), contraharmonic_mean(0.0, 1.0), contraharmonic_mean(0.0, 0.0)
    (0.8333333333333334, 1.0, 0.0)
    """
    return (one * one + other * other) / (one + other) if one + other else 0.0


def _pairs(responses: Sequence[Response]) -> Iterator[tuple[Response, Response]]:
    """Yield image question and text question with the same id stem."""
    text_rows = {row.id.removesuffix(TEXT): row for row in responses if row.id.endswith(TEXT)}
    for row in responses:
        if row.id.endswith(IMAGE) and row.id.removesuffix(IMAGE) in text_rows:
            yield row, text_rows[row.id.removesuffix(IMAGE)]


def _values(with_image: Response, as_text: Response) -> Iterator[tuple[str, float | None]]:
    if with_image.kind in (Kind.CHOICE, Kind.CLOZE):
        right = _right(with_image), _right(as_text)
        yield with_image.kind.value, all_of(right)
        yield f"{with_image.kind.value}.wrong", all_of(None if value is None else 1 - value for value in right)
    else:
        mean = contraharmonic_mean if with_image.role in FORGOTTEN else harmonic_mean
        image_f1, text_f1 = (rouge_of(row, Vocabulary()) for row in (with_image, as_text))
        yield "rougeL", None if image_f1 is None or text_f1 is None else mean(image_f1, text_f1)


def _right(row: Response) -> float | None:
    """Return 1 if a response is right, by one rule for every set, or None if undetectable. Empty ones are wrong."""
    rule = choice_correct_of if row.kind is Kind.CHOICE else general_correct_of
    return rule(row, Vocabulary())
