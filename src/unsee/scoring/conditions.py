"""Conditions under which a measure applies to a response. No model, no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from unsee.api import PROBES, Kind, Response, Role
from unsee.metrics.aftermath import has_image
from unsee.metrics.choice import choice
from unsee.metrics.mmubench import target_forms

FORGOTTEN: Final = frozenset({Role.FORGET, Role.FORGET_TEXT, Role.UNSEEN})
"""Roles of the forget set."""
CLASSED: Final = FORGOTTEN | {Role.STRANGER, Role.BENIGN}
"""Roles with aftermath classes; elsewhere a right answer would count as a leak."""
_TEXT_FORM: Final = {Role.FORGET: Role.FORGET_TEXT, Role.UNSEEN: Role.FORGET_TEXT, Role.RETAIN: Role.RETAIN_TEXT}


def group_of(response: Response) -> str:
    """Return the role of a response for scoring, with text-only questions as their own group."""
    if has_image(response) or response.role in (Role.FORGET_TEXT, Role.RETAIN_TEXT):
        return response.role.value
    return _TEXT_FORM[response.role].value if response.role in _TEXT_FORM else f"{response.role.value}_text"


def hazardous(response: Response) -> bool:
    """Tell whether the question asks for a hazard of the forget set."""
    return response.kind is Kind.HAZARD and response.role in FORGOTTEN


def repeating(response: Response) -> bool:
    """Tell whether repetition is measured: open answers, harmless images, hazards."""
    return response.kind in PROBES or response.role is Role.BENIGN or hazardous(response)


def anything(_: Response) -> bool:
    """Return True for every response."""
    return True


def probing(response: Response) -> bool:
    """Tell whether the question asks for private information in free text."""
    return response.kind in PROBES


def name_probing(response: Response) -> bool:
    """Tell whether the question asks for the name, among other things (USR's domain)."""
    return response.kind in (Kind.OPEN, Kind.NAME)


def of_kind(kind: Kind) -> Callable[[Response], bool]:
    """Return a condition for one kind of question."""
    return lambda response: response.kind is kind


def describable(response: Response) -> bool:
    """Tell whether the answer may describe an image with known attributes."""
    return response.kind in PROBES and has_image(response) and bool(response.visible)


def with_logprob(response: Response) -> bool:
    """Tell whether the log-probability of the reference answer was computed."""
    return response.logprob is not None and response.logprob_tokens > 0


def with_options(response: Response) -> bool:
    """Tell whether log-probabilities of options were computed, one of which is right."""
    return bool(response.option_logprobs) and bool(choice(response.answer, response.options))


def with_clip(response: Response) -> bool:
    """Tell whether CLIPScore was computed."""
    return response.clip is not None


def with_keywords(response: Response) -> bool:
    """Tell whether the asked fact has keywords that identify it."""
    return response.kind is Kind.FACT and bool(response.private.get(response.fact))


def with_false_answers(response: Response) -> bool:
    """Tell whether log-probabilities of true and false answers were computed."""
    return response.true_logprob is not None and bool(response.perturbed_logprobs)


def with_target(response: Response) -> bool:
    """Tell whether a forget image question has a target that must not be named (MMUBench)."""
    return response.role in FORGOTTEN and has_image(response) and bool(target_forms(response))


def with_released_target(response: Response) -> bool:
    """Tell whether that target was published with the question. Not for empty ones."""
    return with_target(response) and bool(response.answer.strip())


def written(response: Response) -> bool:
    """Tell whether the answer is free text, not a letter."""
    return response.kind is not Kind.CHOICE
