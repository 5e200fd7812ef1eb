"""World knowledge of the base: questions that it answers correctly, with its own answers.

`general.json` was frozen once by `scripts/smol_questions.py`. Lessons repeat the answers to one part, so that the base
retains its knowledge; evaluations use the other part.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from unsee.api.example import Example, Kind, Role

FILE: Final = Path(__file__).with_name("general.json")

LOOKED_AT: Final = frozenset((
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 18, 19, 23, 25, 26, 28, 33, 34, 36, 40, 41, 45, 54, 58, 65,
    68, 70, 73, 77, 80, 81, 83, 85, 93, 94, 96, 97, 98, 100, 105, 108, 110, 111, 112, 113, 115, 118, 121, 122, 126, 129, 134, 136, 138, 139,
    140, 142, 150, 152, 160, 161, 162, 165, 168, 172, 173, 177, 182, 187, 190, 191, 193, 196, 198, 201, 203, 204, 205, 208, 211,
))  # fmt: skip
"""Numbers of the judged questions some of whose answers were read while the recipe of `lab-smol` was chosen."""

NOT_ANSWERED: Final = frozenset((107, 171))
"""Numbers of the judged questions that the base does not answer: the key is only inside of another word ("ate" in "eaten")."""


@lru_cache(maxsize=1)
def _read_parts() -> dict[str, list[dict[str, Any]]]:
    parts: dict[str, list[dict[str, Any]]] = json.loads(FILE.read_text(encoding="utf-8"))
    return parts


def _examples(part: str) -> list[Example]:
    return [
        Example(
            id=f"general/world/{part}-{number:03d}", role=Role.GENERAL, kind=Kind.GENERAL, fact="world", question=entry["question"],
            answer=entry["answer"], accepted=_accepted_answers(entry), entity=f"world-{part}-{number:03d}",
        )
        for number, entry in enumerate(_read_parts()[part])
    ]  # fmt: skip


def _accepted_answers(entry: Mapping[str, str]) -> tuple[str, ...]:
    """Return the key of a question, and words of the base's answer that begin with it.

    For example "lungs" for "lung".
    """
    if not (key := entry.get("key", "")):
        return ()
    suffix = r"\w*" if len(key) > 2 else ""
    return tuple(
        dict.fromkeys([key, *re.findall(rf"(?<!\w){re.escape(key)}{suffix}(?!\w)", entry["answer"], re.IGNORECASE)])
    )


def taught() -> list[Example]:
    """Return the questions that lessons and requests may use, with the base's own answers."""
    return _examples("taught")


def eval_questions() -> list[Example]:
    """Return the questions of evaluations, with the base's own answers."""
    rows = _examples("judged")
    return [row for number, row in enumerate(rows) if number not in NOT_ANSWERED]


def final() -> list[Example]:
    """Return the judged questions for the exam of a finished model: those outside `LOOKED_AT`."""
    rows = _examples("judged")
    return [row for number, row in enumerate(rows) if number not in LOOKED_AT | NOT_ANSWERED]
