"""Brevity: how short an answer is, from 1 for an empty one to 0 at twenty words."""

from __future__ import annotations

from unsee.api import Measure, Response, Vocabulary
from unsee.scoring.conditions import written


def _value(response: Response, _: Vocabulary) -> float:
    return max(0.0, 1 - len(response.text.split()) / 20)


BREVITY = Measure(key="brevity", better="neither", applies=written, value=_value)
