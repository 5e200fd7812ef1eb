"""MMUBench metrics (arXiv 2405.12523): EM, C-Dis, fluency, diversity.

Pure functions on texts and on token probabilities; `unsee.inference.answer_logits.answer_logprob` says the latter. Where the released
script for EM departs from what its name says, `has_target_as_released` gives theirs for comparison (SIU, arXiv 2405.12523).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle
from typing import Final, Literal, TypeVar

from unsee.api.example import Kind
from unsee.api.response import Response
from unsee.errors import UserError
from unsee.metrics.matching import states, unreadable

A = TypeVar("A")
B = TypeVar("B")

_LEAST: Final = 1e-10
"""Distance of clamped probabilities from 0 and 1 (released: from 0)."""


def strip_targets(targets: Sequence[str]) -> tuple[list[str], int]:
    """Return stripped targets, and how many needed it (four in the released prompts).

    >>> strip_targets(["yes", " yes trump", " yes "])
    (['yes', 'yes trump', 'yes'], 2)
    """
    clean = [target.strip() for target in targets]
    return clean, sum(old != new for old, new in zip(targets, clean, strict=True))


def target_gone(text: str, forms: Sequence[str]) -> bool | None:
    """Tell whether an output has no form of its target as whole words [inferred], or None if its script hides it.

    >>> target_gone("A man.", ["Trump"]), target_gone("It is Trump.", ["Trump"]), target_gone("这是特朗普。", ["Trump"])
    (True, False, None)
    """
    if any(states("name", text, form) for form in forms):
        return False
    return None if unreadable(text, {"": tuple(forms)}) else True


def target_forms(response: Response) -> tuple[str, ...]:
    """Return what an answer must not have: forms of the name, or a yes/no reference."""
    if response.kind is Kind.GENERAL:
        return (response.answer,) if response.answer.strip() else ()
    return tuple(form for form in response.private.get("name", ()) if not states("name", response.question, form))


def has_target_as_released(text: str, target: str) -> bool:
    """Tell whether the unstripped lower-cased target is a substring of the output [code].

    >>> has_target_as_released("Yes, it is.", " yes"), has_target_as_released("I saw it yesterday.", "yes")
    (False, True)
    """
    return target.lower() in text.lower()


def pair_images(
    prompts: Sequence[A], images: Sequence[B], pairing: Literal["cycle", "product"] = "cycle"
) -> list[tuple[A, B]]:
    """Pair prompts with images: each prompt once, images in turn [code], or all with all.

    >>> pair_images(["p", "q", "r"], [1, 2]), len(pair_images(["p", "q", "r"], [1, 2], "product"))
    ([('p', 1), ('q', 2), ('r', 1)], 6)
    """
    if pairing == "product":
        return [(prompt, image) for prompt in prompts for image in images]
    return list(zip(prompts, cycle(images), strict=False)) if images else []


def c_dis(original: Sequence[float], unlearned: Sequence[float]) -> float:
    """Return the mean binary KL of both models' name probability where the original named it.

    One probability a name token of the original model's greedy answer, under either model. Never negative, at most
    about 23 a token; higher = better forgotten [inferred].

    >>> c_dis([0.9, 0.5], [0.9, 0.5]), round(c_dis([0.9], [0.1]), 4)
    (0.0, 1.7578)
    """
    if not original:
        raise UserError("C-Dis needs at least one token of the name in an answer of the original model.")
    return _mean([_binary_kl(p, q) for p, q in zip(original, unlearned, strict=True)])


def fluency(
    logprobs: Sequence[float],
    concept: Sequence[bool],
    neutral: Literal["drop", "uniform"] = "drop",
    vocabulary: int | None = None,
) -> float | None:
    """Return the unlearned model's perplexity of the original model's greedy response.

    Exponential of the mean over tokens; None if no token is left.

    Args:
        logprobs: Log-probability in nats of each answer token under the unlearned model, of all answers.
        concept: Whether the token belongs to the concept's name.
        neutral: What becomes of those: left out, or counted as one of `vocabulary` tokens.
        vocabulary: Number of tokens in the vocabulary, for uniform.

    >>> fluency([math.log(0.5), math.log(0.001)], [False, True])
    2.0
    >>> round(fluency([math.log(0.5), math.log(0.001)], [False, True], "uniform", vocabulary=8), 6)
    4.0
    """
    if neutral == "uniform" and (vocabulary is None or vocabulary < 1):
        raise UserError(f"fluency with neutral='uniform' needs the size of the vocabulary, got {vocabulary}.")
    uniform = -math.log(vocabulary or 1)
    pairs = zip(logprobs, concept, strict=True)
    token_logprobs = [uniform if named else value for value, named in pairs if neutral == "uniform" or not named]
    return math.exp(-_mean(token_logprobs)) if token_logprobs else None


def diversity(texts: Sequence[str], unit: Literal["words", "characters"] = "words") -> float | None:
    """Return distinct over all words of an output in percent, mean over outputs [code].

    Characters in scripts without spaces; an empty output has 0.

    The released script has characters in a commented block, for outputs without blanks: say which was used.

    >>> diversity(["a dog a cat", ""]), diversity(["aab"], "characters")
    (37.5, 66.66666666666667)
    """
    shares = []
    for text in texts:
        units = text.split() if unit == "words" else list("".join(text.split()))
        shares.append(100 * len(set(units)) / len(units) if units else 0.0)
    return _mean(shares) if shares else None


def _binary_kl(p: float, q: float) -> float:
    """Return KL between (p, 1 - p) and (q, 1 - q)."""
    p, q = (min(max(value, _LEAST), 1 - _LEAST) for value in (p, q))
    return max(0.0, p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
