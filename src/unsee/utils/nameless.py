"""Settings that cannot name anybody."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

_CODE: Final = re.compile(r"[\w.:@+-]{0,40}", re.ASCII)
"""Text of a setting that is kept: a word of code, no sentence and no path."""


def nameless(settings: Any) -> Any:
    """Return the settings that cannot name anybody: numbers, switches, words of code.

    Texts with blanks (instructions), paths, mappings and lists of texts are left out.
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
