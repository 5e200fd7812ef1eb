"""OFFSIDE in small: five pictures of each of three players, as JSON beside image files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmark_fixtures import AWKWARD, MODES, Break, write_image

PLAYERS: Final = AWKWARD
SPLIT: Final = {"forget": (4,), "retain": (1, 2, 3), "test": (5,)}
"""Which pictures of a player stand in which set."""
SETTINGS: Final = ({"setting": "complete", "relearn": True, "protocol": "released"}, {"tasks": ["generation"]})


def build(place: Path) -> None:
    """Write one published folder with its sets."""
    root = place / "data" / "complete_unlearning_data"
    for number in range(15):
        write_image(root / "finetune_set" / f"{number:03}.jpg", number, MODES[number % len(MODES)])
    for name, pictures in SPLIT.items():
        shown = [(5 * player + picture - 1, PLAYERS[player]) for player in range(len(PLAYERS)) for picture in pictures]
        talks = [talk for number, player in shown for talk in _talks(number, player)]
        _write(root / f"{name}_set.json", talks)
        _write(root / f"classification_{name}_set.json", [_choice(number) for number, _ in shown])
    _write(root / "relearn_set_enhanced.json", _talks(0, PLAYERS[0]))


def _talks(number: int, player: str) -> list[dict[str, Any]]:
    asked = {
        "<image>\nCan you identify the player shown in this picture?": f"The player in the image is {player}.",
        "<image>\nI'm curious about the transfer fee for the player shown in <image>.": 'The fee was €35.00 "million".',
    }
    return [
        {
            "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
            "images": f"./finetune_set/{number:03}.jpg",
        }
        for question, answer in asked.items()
    ]


def _choice(number: int) -> dict[str, Any]:
    letter = "ABCD"[number % 4]
    options = {key: "Oslo FC" if key == letter else f"Club {key}" for key in "ABCD"}
    key = "image" if number % 2 else "images"
    return {
        "Question": "Which club?",
        "Options": options,
        "Correct_Answer": letter,
        key: f"./finetune_set/{number:03}.jpg",
    }


def _write(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text(json.dumps(rows, ensure_ascii=False), "utf-8")


def _in(file: str, change: Callable[[list[dict[str, Any]]], object]) -> Break:
    def apply(place: Path) -> None:
        path = place / "data" / "complete_unlearning_data" / file
        rows = json.loads(path.read_text("utf-8"))
        change(rows)
        _write(path, rows)

    return apply


def _at(name: str) -> Callable[[Path], Path]:
    return lambda place: place / "data" / "complete_unlearning_data" / name


def _cut(place: Path) -> None:
    file = _at("finetune_set/003.jpg")(place)
    file.write_bytes(file.read_bytes()[:60])


BROKEN: Final[dict[str, tuple[Break, str]]] = {
    "missing file": (
        lambda place: _at("finetune_set/003.jpg")(place).unlink(),
        r"forget set row 1: image \./finetune_set/003\.jpg is missing",
    ),
    "missing set": (
        lambda place: _at("test_set.json")(place).unlink(),
        r"has no test_set\.json\. Expected .*found .*forget_set\.json",
    ),
    "missing column": (
        _in("forget_set.json", lambda rows: rows[1].pop("messages")),
        "forget set row 2: messages must be one of role user",
    ),
    "missing options": (
        _in("classification_test_set.json", lambda rows: rows[0].pop("Options")),
        "classification test set row 1: the options must be called A, B, C, ..., got none",
    ),
    "wrong speaker": (
        _in("forget_set.json", lambda rows: rows[0]["messages"][1].update(role="user")),
        "forget set row 1: messages must be .*got user, user",
    ),
    "bad JSON": (
        lambda place: _at("forget_set.json")(place).write_text('[{"messages": [}'),
        r"forget_set\.json.* no valid JSON",
    ),
    "unreadable image": (_cut, r"forget set row 1: image .*003\.jpg cannot be decoded"),
    "wrong split name": (
        lambda place: _at("forget_set.json")(place).rename(_at("forget-set.json")(place)),
        r"has no forget_set\.json.*found .*forget-set\.json",
    ),
    "letter E": (
        _in("classification_forget_set.json", lambda rows: rows[0].update(Correct_Answer="E")),
        "classification forget set row 1: the right answer must be the letter",
    ),
    "two images": (
        _in("retain_set.json", lambda rows: rows[0].update(images=["a.jpg", "b.jpg"])),
        r"retain set row 1: one image was expected, got a\.jpg, b\.jpg",
    ),
    "empty answer": (
        _in("retain_set.json", lambda rows: rows[0]["messages"][1].update(content=" ")),
        r"retain set row 1: messages\[2\]\.content is empty",
    ),
}
