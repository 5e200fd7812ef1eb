"""World knowledge of the base: questions that it answers correctly, with its own answers.

`general.json` was frozen once by `scripts/smol_questions.py`. Lessons repeat the answers to one part, so that the base
keeps what it knew; evaluations ask the other part.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from unsee.api.example import Example, Kind, Role

FILE: Final = Path(__file__).with_name("general.json")


@lru_cache(maxsize=1)
def _stored() -> dict[str, list[dict[str, Any]]]:
    stored: dict[str, list[dict[str, Any]]] = json.loads(FILE.read_text(encoding="utf-8"))
    return stored


def _examples(part: str) -> list[Example]:
    return [
        Example(
            id=f"general/world/{part}-{number:03d}", role=Role.GENERAL, kind=Kind.GENERAL, fact="world", question=one["question"],
            answer=one["answer"], entity=f"world-{part}-{number:03d}",
        )
        for number, one in enumerate(_stored()[part])
    ]  # fmt: skip


def taught() -> list[Example]:
    """Return the questions that lessons and requests may use, with the base's own answers."""
    return _examples("taught")


def judged() -> list[Example]:
    """Return the questions of evaluations, with the base's own answers."""
    return _examples("judged")


def keys() -> dict[str, str]:
    """Return id -> string that a right answer has."""
    return {f"general/world/judged-{number:03d}": one["key"] for number, one in enumerate(_stored()["judged"])}
