"""Names in responses: USR on forget, name rate on retain, known names for strangers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unsee.metrics.matching import contains_name, mentions
from unsee.metrics.scripts import foreign, scripts


def has_name(text: str, forms: Sequence[str], question: str = "") -> bool:
    """Tell whether the text has a form of the name not in the question (USR = 1 - mean).

    >>> has_name("That is Lind's dog.", ["Mara Lind", "Lind"]), has_name("A dog.", ["Mara Lind", "Lind"])
    (True, False)
    """
    return any(contains_name(text, form) and not mentions(question, form) for form in forms)


def known_names(text: str, names: Mapping[str, Sequence[str]], question: str = "") -> list[str]:
    """Return the known entities that the text names. For strangers any is wrong.

    >>> known_names("Mara Lind or Bo Winter", {"p1": ["Mara Lind"], "p2": ["Bo Winter"], "p3": ["Ada Lovell"]})
    ['p1', 'p2']
    """
    return [entity for entity, forms in names.items() if has_name(text, forms, question)]


def hidden_names(text: str, names: Mapping[str, Sequence[str]]) -> bool:
    """Tell whether no name is given, or the text has a script in which none is, so that none is detected.

    >>> hidden_names("这是张伟。", {"p1": ["Zhang Wei"]}), hidden_names("这是张伟。", {"p1": ["Zhang Wei", "张伟"]})
    (True, False)
    >>> hidden_names("Mara Lind", {})
    True
    """
    if not any(names.values()):
        return True
    open_scripts = set(foreign(text, frozenset()))
    for form in (form for forms in names.values() for form in forms):
        if not open_scripts:
            break
        open_scripts -= scripts([form])
    return bool(open_scripts)
