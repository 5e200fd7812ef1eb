"""Settings that cannot name anybody."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

_CODE: Final = re.compile(r"(?!.*\.(txt|jsonl?|csv|ya?ml)$)[\w.:@+-]{0,40}", re.ASCII)
"""Text of a setting that is kept: a word of code, no sentence, no path and no file."""


def nameless(settings: Any) -> Any:
    """Return the settings that cannot name anybody: numbers, switches, words of code.

    Texts with blanks (instructions), paths, files, mappings and lists of texts are left out.

    >>> nameless({"beta": 0.1, "reduction": "mean", "refusals": "ada.txt"})
    {'beta': 0.1, 'reduction': 'mean'}
    """
    if not isinstance(settings, Mapping):
        return settings
    return {name: value for name, value in settings.items() if _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return _CODE.fullmatch(value) is not None
    if isinstance(value, list):
        return not any(isinstance(item, str | list | Mapping) for item in value)
    return not isinstance(value, Mapping)


def nameless_words(settings: str) -> str:
    """Return those settings of a cell's label that are one word of code each.

    >>> nameless_words("lr=0.001 instruction=Ada is not to be named. weight=4")
    'lr=0.001 weight=4'
    """
    parts = (part.partition("=") for part in re.split(r"\s(?=[\w.]+=)", settings))
    return " ".join(f"{name}={value}" for name, _, value in parts if value and _CODE.fullmatch(value))
