"""Fluency of the responses of a `lab-smol` model: perplexity under the base model."""

from __future__ import annotations

import math
from collections.abc import Sequence

from unsee.api import VLM, Example, Kind
from unsee.api.request import Prompt
from unsee.inference.likelihood import likelihoods

SENTENCES = (Kind.OPEN, Kind.NAME, Kind.FACT, Kind.VISIBLE, Kind.CHAIN)
"""Kinds of questions that are answered in sentences."""


def fluency(base: VLM, examples: Sequence[Example], responses: Sequence[str]) -> dict[str, float]:
    """Return the perplexity of responses and reference answers under the base, and the count.

    Empty responses, which have no perplexity, are left out. Without any other of these kinds there is only the count, 0.

    The base reads the question without its picture: exp of the mean negative log-probability of all answer tokens, EOS included
    [inferred]. It cannot predict what the picture shows, so only the ratio to the reference answers measures fluency.
    """
    rows = [
        (example, response)
        for example, response in zip(examples, responses, strict=True)
        if example.kind in SENTENCES and response.strip()
    ]
    if not rows:
        return {"n": 0}
    response_perplexity = _perplexity(base, [(example.question, response) for example, response in rows])
    reference_perplexity = _perplexity(base, [(example.question, example.answer) for example, _ in rows])
    return {"perplexity": round(response_perplexity, 2), "reference": round(reference_perplexity, 2), "n": len(rows)}


def _perplexity(base: VLM, pairs: Sequence[tuple[str, str]]) -> float:
    log_probs = [
        log_prob
        for likelihood in likelihoods(base, [(Prompt(question), text) for question, text in pairs])
        for log_prob in likelihood.tokens
    ]
    return math.exp(-math.fsum(log_probs) / len(log_probs))
