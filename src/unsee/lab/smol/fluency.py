"""Fluency of what a `lab-smol` model says: perplexity under the untouched base."""

from __future__ import annotations

import math
from collections.abc import Sequence

from unsee.api import VLM, Example, Kind
from unsee.api.request import Prompt
from unsee.inference.likelihood import likelihoods

SENTENCES = (Kind.OPEN, Kind.NAME, Kind.FACT, Kind.VISIBLE, Kind.CHAIN)
"""Kinds of questions that are answered in sentences."""


def fluency(base: VLM, asked: Sequence[Example], said: Sequence[str]) -> dict[str, float]:
    """Return the perplexity of answers under the base, that of the reference answers, and the number of answers.

    The base reads the question without its picture: exp of the mean negative log-probability of all answer tokens, EOS included
    [inferred]. What the picture tells is news to it, so only the ratio to the reference answers says how fluent an answer is.
    """
    rows = [(example, text) for example, text in zip(asked, said, strict=True) if example.kind in SENTENCES]
    given = _perplexity(base, [(example.question, text) for example, text in rows])
    reference = _perplexity(base, [(example.question, example.answer) for example, _ in rows])
    return {"perplexity": round(given, 2), "reference": round(reference, 2), "n": len(rows)}


def _perplexity(base: VLM, pairs: Sequence[tuple[str, str]]) -> float:
    tokens = [token for one in likelihoods(base, [(Prompt(q), text) for q, text in pairs]) for token in one.tokens]
    return math.exp(-math.fsum(tokens) / len(tokens))
