"""UMU-Bench in small: 20 people, 3 real ones; cells are Python literals as published, some JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pyarrow

from benchmark_fixtures import AWKWARD, IMAGE, MODES, Break, cut_image, image_cell, put, renamed, without, write_shards

PEOPLE: Final = [str(number) for number in range(1, 21)]
_TEXT: Final = ("ID", "Biography", "MM_QA", "UM_QA", "Classify", "Cloze", "Generation")
SCHEMA: Final = pyarrow.schema(
    [("ID", pyarrow.string()), ("image", IMAGE), *((name, pyarrow.string()) for name in _TEXT[1:])]
)
SETTINGS: Final = (
    {"ratio": 10, "protocol": "released"},
    {"ratio": 15, "sets": ["forget", "retain"], "train": ["text", "image"], "tasks": ["classification"]},
)


def build(place: Path) -> None:
    """Write every folder of the hub."""
    rows = [person(name) for name in PEOPLE]
    write_shards(place / "Full_Set", rows, SCHEMA)
    for ratio, count in ((5, 1), (10, 2), (15, 3)):
        write_shards(place / f"forget_{ratio}", rows[:count], SCHEMA)
        write_shards(place / f"retain_{100 - ratio}", rows[count:], SCHEMA)
    write_shards(place / "Real_Person_Set", [person(str(number)) for number in (501, 502, 503)], SCHEMA)


def person(name: str) -> dict[str, Any]:
    """Return one row."""
    number = int(name)
    called = AWKWARD[number - 1] if number <= len(AWKWARD) else f"Given{number} Family{number}"
    write = json.dumps if number % 4 == 0 else repr
    letter = "ABCD"[number % 4]
    options = {key: "Lisbon" if key == letter else f"Town {key}" for key in "ABCD"}
    halves = {"muitimodal": "this person", "unimodal": called}
    asked = {
        "Classify": lambda who: {
            "question": f"Where does {who} live?",
            "options": options,
            "answer": f"{letter}. Lisbon",
        },
        "Cloze": lambda who: {"question": f"In which town does {who} live?", "answer": "Lisbon"},
        "Generation": lambda who: {
            "question": f"What does {who} do in Lisbon?",
            "answer": 'Works\nas a "baker" there.',
        },
    }
    tasks = {
        task: write({half: {key: make(who) for key in ("q1", "q2")} for half, who in halves.items()})
        for task, make in asked.items()
    }
    pairs = {"question": {"1": f"Who is {called}?", "2": "Where?"}, "answer": {"1": f"It is {called}.", "2": "Lisbon."}}
    shown = {"question": {"1": "Who is this?"}, "answer": {"1": f"This is {called}."}}
    return {
        "ID": name,
        "image": image_cell(number, MODES[number % len(MODES)]),
        "Biography": write({"Name": called, "City": "Lisbon"}),
        "MM_QA": write(shown),
        "UM_QA": write(pairs),
        **tasks,
    }


BROKEN: Final[dict[str, tuple[Break, str]]] = {
    "missing shard": (renamed("retain_95", "train-00000-of-00002"), "retain_95 lacks shard 00001"),
    "missing column": (
        without("forget_5", "Cloze"),
        "forget_5 has no column 'Cloze'",
    ),
    "bad literal": (
        put("forget_5", 0, "Cloze", lambda _: "{'unimodal': {"),
        r"forget_5 row 1 \(ID 1\): Cloze is neither JSON nor",
    ),
    "code is not run": (
        put("forget_5", 0, "Cloze", lambda _: "exit(3)"),
        "Cloze is neither JSON nor a Python literal",
    ),
    "no half": (
        put("forget_5", 0, "Cloze", lambda text: text.replace("muiti", "miu")),
        "Cloze has no half muitimodal",
    ),
    "no pairs": (
        put("forget_5", 0, "Cloze", lambda text: text.replace("'q1'", "'q9'", 1)),
        "Cloze: the halves have other questions",
    ),
    "answer missing": (
        put("forget_5", 0, "MM_QA", lambda text: text.replace("'answer'", "'anwser'")),
        "MM_QA must hold 'answer'",
    ),
    "unreadable image": (
        put("forget_5", 0, "image", cut_image),
        r"forget_5 row 1 \(ID 1\): the image cannot be decoded",
    ),
    "no image": (put("retain_95", 3, "image", lambda _: None), r"retain_95 row 4 \(ID 5\): the image is empty"),
    "wrong split name": (
        renamed("retain_95", "validation-00000-of-00001"),
        "retain_95 has split validation, but no split train",
    ),
    "overlap": (put("retain_95", 0, "ID", lambda _: "1"), "1 stand on both sides"),
    "duplicate ID": (put("retain_95", 0, "ID", lambda _: "3"), "retain_95: ID 3 occurs more than once"),
    "letter E": (
        put("forget_5", 0, "Classify", lambda text: text.replace("B. Lisbon", "E. Lisbon")),
        "letter of an option",
    ),
}
