"""MMUBench metrics (arXiv 2405.12523): EM, C-Dis, specificity, fluency, diversity.

Pure functions on texts and on token probabilities; `unsee.inference.answer_logits.answer_logprob` says the latter. Where the released
scripts depart from what a metric's name says, `official_code` gives theirs for comparison (SIU, arXiv 2405.12523).
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Final, Literal, TypeVar

from unsee.api.example import Kind, Role
from unsee.api.response import Response
from unsee.errors import UserError
from unsee.metrics.matching import contains, unreadable

Match = Literal["word", "substring"]
A = TypeVar("A")
B = TypeVar("B")

_LEAST: Final = 1e-10
"""Distance of clamped probabilities from 0 and 1 (released: from 0)."""


@dataclass(frozen=True, kw_only=True)
class ExactMatch:
    """EM for efficacy or generality, with the share of empty outputs.

    A collapsed model has EM 1.
    """

    value: float
    """Share of outputs without their target; higher = better forgotten. Empty outputs count."""
    empty: float
    """Share of outputs without a word, to be read before `value`."""
    answered: float | None
    """`value` over non-empty outputs; None without any."""
    n: int


@dataclass(frozen=True, kw_only=True)
class MMUBench:
    """Metrics that need responses only."""

    efficacy: ExactMatch | None
    """On the training images."""
    generality: ExactMatch | None
    """On held-out images of the concepts."""
    diversity: float | None
    """On both, in percent."""


def stripped(targets: Sequence[str]) -> tuple[list[str], int]:
    """Return stripped targets, and how many needed it (four in the released prompts).

    >>> stripped(["yes", " yes trump", " yes "])
    (['yes', 'yes trump', 'yes'], 2)
    """
    clean = [target.strip() for target in targets]
    return clean, sum(old != new for old, new in zip(targets, clean, strict=True))


def has_target(text: str, target: str, match: Match = "word") -> bool:
    """Tell whether an output has its target: as whole words [inferred] or a substring [code].

    >>> has_target("Yes, it is.", " yes"), has_target("I saw it yesterday.", "yes")
    (True, False)
    >>> has_target("I saw it yesterday.", "yes", "substring")
    True
    """
    if match == "word":
        return contains(text, target)
    return target.strip().casefold() in text.casefold()


def exact_match(
    texts: Sequence[str], targets: Sequence[str | Sequence[str]], match: Match = "word"
) -> ExactMatch | None:
    """Return the share of outputs without any form of their target, or None without outputs.

    Those in a script that the target is not given in are left out.

    >>> exact_match(["A dog.", "It is Trump.", ""], ["trump", "trump", "trump"])
    ExactMatch(value=0.6666666666666666, empty=0.3333333333333333, answered=0.5, n=3)
    """
    found = [(text, target_gone(text, _forms(target), match)) for text, target in zip(texts, targets, strict=True)]
    told = [(text, one) for text, one in found if one is not None]
    if not told:
        return None
    gone, said = [one for _, one in told], [bool(_words(text)) for text, _ in told]
    answered = [one for one, word in zip(gone, said, strict=True) if word]
    return ExactMatch(
        value=_mean(gone),
        empty=_mean([not one for one in said]),
        answered=_mean(answered) if answered else None,
        n=len(told),
    )


def target_gone(text: str, forms: Sequence[str], match: Match = "word") -> bool | None:
    """Tell whether an output has no form of its target, or None if its script hides it.

    >>> target_gone("A man.", ["Trump"]), target_gone("It is Trump.", ["Trump"]), target_gone("这是特朗普。", ["Trump"])
    (True, False, None)
    """
    if any(has_target(text, form, match) for form in forms):
        return False
    return None if unreadable(text, {"": tuple(forms)}) else True


def target_forms(response: Response) -> tuple[str, ...]:
    """Return what an answer must not have: forms of the name, or a yes/no reference."""
    if response.kind is Kind.GENERAL:
        return (response.answer,) if response.answer.strip() else ()
    return tuple(form for form in response.private.get("name", ()) if not contains(response.question, form))


def has_target_as_released(text: str, target: str) -> bool:
    """Tell whether the unstripped lower-cased target is a substring of the output [code].

    >>> has_target_as_released("Yes, it is.", " yes"), has_target_as_released("I saw it yesterday.", "yes")
    (False, True)
    """
    return target.lower() in text.lower()


def paired(
    prompts: Sequence[A], images: Sequence[B], pairing: Literal["cycle", "product"] = "cycle"
) -> list[tuple[A, B]]:
    """Pair prompts with images: each prompt once, images in turn [code], or all with all.

    >>> paired(["p", "q", "r"], [1, 2]), len(paired(["p", "q", "r"], [1, 2], "product"))
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
    kept = [uniform if named else value for value, named in pairs if neutral == "uniform" or not named]
    return math.exp(-_mean(kept)) if kept else None


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


def specificity(scores: Mapping[str, float]) -> float:
    """Return the mean over benchmarks, each in 0..100. The caller reports which.

    >>> specificity({"gqa": 60.0, "pope": 80.0})
    70.0
    """
    if not scores:
        raise UserError("Specificity needs the score of at least one benchmark.")
    return _mean(list(scores.values()))


def mmubench(responses: Sequence[Response], trained: Collection[str], match: Match = "word") -> MMUBench:
    """Return efficacy on training images, generality on others, diversity on both.

    Names that the question itself has do not count; a yes/no question (kind general) has its reference as target. Questions
    with neither are left out.
    """
    about = [one for one in responses if one.image_key and (one.private.get("name") or one.kind is Kind.GENERAL)]
    seen = [one for one in about if one.role is Role.FORGET and one.image_key in trained]
    unseen = [one for one in about if one.role is Role.UNSEEN]
    return MMUBench(
        efficacy=_of(seen, match),
        generality=_of(unseen, match),
        diversity=diversity([one.text for one in (*seen, *unseen)]),
    )


def _of(responses: Sequence[Response], match: Match) -> ExactMatch | None:
    return exact_match([one.text for one in responses], [target_forms(one) for one in responses], match)


def _forms(target: str | Sequence[str]) -> Sequence[str]:
    return [target] if isinstance(target, str) else target


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def _binary_kl(p: float, q: float) -> float:
    """Return KL between (p, 1 - p) and (q, 1 - q)."""
    p, q = (min(max(value, _LEAST), 1 - _LEAST) for value in (p, q))
    return max(0.0, p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
