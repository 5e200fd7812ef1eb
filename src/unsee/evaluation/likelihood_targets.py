"""Texts whose log-probability is computed: reference, options, true and false answers."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from unsee.api import Example

if TYPE_CHECKING:
    from unsee.inference.likelihood import Likelihood


def forms(example: Example) -> list[list[str]]:
    """Return the spellings of options: their texts and, if the reference is a letter, letters.

    A model is judged by the spelling that it gives the higher probability [inferred].
    """
    letters = list(ascii_uppercase[: len(example.options)])
    letter_forms = [letters] if example.answer.strip() in letters else []
    return [*letter_forms, list(example.options)] if example.options else []


def truth_ratio_answers(example: Example) -> list[str]:
    """Return true and false answers for the truth ratio, or none without false ones."""
    return [example.paraphrase or example.answer, *example.perturbed] if example.perturbed else []


def texts(example: Example) -> list[str]:
    """Return all texts whose log-probability is computed."""
    return [*([example.answer] if example.answer.strip() else []), *truth_ratio_answers(example)]


def likely(example: Example, likelihoods: Sequence[Likelihood]) -> dict[str, Any]:
    """Return the response fields for the log-probabilities of `texts`."""
    values: dict[str, Any] = {}
    if example.answer.strip():
        values |= {"logprob": likelihoods[0].sum, "logprob_tokens": len(likelihoods[0].tokens)}
    if example.perturbed:
        true_logprob, *false_logprobs = (
            likelihood.mean for likelihood in likelihoods[-len(truth_ratio_answers(example)) :]
        )
        values |= {"true_logprob": true_logprob, "perturbed_logprobs": false_logprobs}
    return values
