"""Exact match, cloze match and closed-list match."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from unsee.metrics.matching import contains, states
from unsee.metrics.normal_form import normalise


def exact_match(*, prediction: str, reference: str) -> bool:
    """Tell whether both texts have the same words. An empty reference matches nothing.

    >>> exact_match(prediction="In Oslo.", reference="in oslo"), exact_match(prediction="In Oslo, Norway", reference="in Oslo")
    (True, False)
    """
    return normalise(reference) != " " and normalise(prediction) == normalise(reference)


def cloze_match(*, prediction: str, reference: str) -> bool:
    """Tell whether the reference's words occur in the prediction, contiguous and whole.

    >>> cloze_match(prediction="She lives in Oslo.", reference="Oslo")
    True
    """
    return contains(prediction, reference)


def only_match(
    *, prediction: str, right: Iterable[str], wrong: Iterable[str], question: str = "", fact: str = ""
) -> bool:
    """Tell whether a right value occurs and no wrong one.

    Values inside the question or inside a right value are no claim.

    Args:
        prediction: Answer of the model.
        right: Spellings of the right value.
        wrong: Other values that the fact could have.
        question: Text whose values are not counted as a claim.
        fact: Fact that is asked for. Values of one that are names may have case endings.

    >>> only_match(prediction="Oslo or Bergen.", right=["Oslo"], wrong=["Bergen", "Rome"])
    False
    >>> only_match(prediction="In New York City.", right=["New York City"], wrong=["York"])
    True
    """
    right = tuple(right)
    found = partial(states, fact)
    if not any(found(prediction, value) for value in right):
        return False
    wrong_values = (value for value in wrong if not found(question, value) and not any(found(r, value) for r in right))
    return not any(found(prediction, value) for value in wrong_values)


def comparable(reference: str) -> bool:
    """Tell whether a reference has a letter or digit, without which nothing matches it.

    >>> comparable("Oslo"), comparable("上海"), comparable("?!")
    (True, True, False)
    """
    return normalise(reference) != " "
