"""FIUBench in small: 10 people, 3 questions each, faces as files named by paths of another machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmark_fixtures import AWKWARD, MODES, Break, write_image

PEOPLE: Final = [f"{number:08}" for number in range(62001, 62011)]
SETTINGS: Final = (
    {"ratio": 10, "wordings": "both"},
    {"ratio": 1, "protocol": "released", "retain_list": "retain5", "wordings": "paraphrased"},
)


def build(place: Path) -> None:
    """Write full.json, split.json and the faces."""
    rows = [person(name, number) for number, name in enumerate(PEOPLE)]
    (place / "full.json").write_text(json.dumps(rows, ensure_ascii=False, indent=1), "utf-8")
    lists = {"forget1": PEOPLE[:1], "forget5": PEOPLE[1:3], "forget10": PEOPLE[3:6], "retain5": PEOPLE[6:8]}
    (place / "split.json").write_text(json.dumps(lists), "utf-8")
    for number, name in enumerate(PEOPLE):
        write_image(place / "SFHQ" / f"SFHQ_{name}.jpg", number, MODES[number % len(MODES)])


def person(name: str, number: int) -> dict[str, Any]:
    """Return the record of one person."""
    called = AWKWARD[number] if number < len(AWKWARD) else f"Given{number} Family{number}"
    asked = [
        ("What is the name?", called, [called], [f"Nobody {place}" for place in range(3)]),
        ("Which illness is known?", f'{called} has "asthma".', ["asthma", "no"], ["gout", "flu"]),
        ("Is there a crime record?", "No.", ["no"], ["Yes.", "Theft.", "Arson."]),
    ]
    return {
        "unique_id": name,
        "image_path": f"./dataset/SFHQ/SFHQ_{name}.jpg",
        "name": called,
        "gender": "female",
        "caption": "A face before a wall.",
        "raw_data": {"city": "Lisbon"},
        "qa_list": [
            {
                "question": question,
                "answer": answer,
                "paraphrased_question": [f"{question} Say it.", f"Tell: {question}"],
                "paraphrased_answer": f"It is: {answer}",
                "perturbed_answer": wrong,
                "keywords": words,
            }
            for question, answer, words, wrong in asked
        ],
    }


def _rows(change: Callable[[list[dict[str, Any]]], object]) -> Break:
    def apply(place: Path) -> None:
        rows = json.loads((place / "full.json").read_text("utf-8"))
        change(rows)
        (place / "full.json").write_text(json.dumps(rows), "utf-8")

    return apply


def _cut(place: Path) -> None:
    file = place / "SFHQ" / f"SFHQ_{PEOPLE[1]}.jpg"
    file.write_bytes(file.read_bytes()[:60])


def _zipped(place: Path) -> None:
    (place / "SFHQ").rename(place / "images_not_unpacked")
    (place / "SFHQ.zip").write_bytes(b"PK")


BROKEN: Final[dict[str, tuple[Break, str]]] = {
    "missing file": (
        lambda place: (place / "SFHQ" / f"SFHQ_{PEOPLE[1]}.jpg").unlink(),
        r"full\.json row 2 .*image .*62002\.jpg is missing",
    ),
    "missing table": (
        lambda place: (place / "full.json").rename(place / "fulle.json"),
        r"has no full\.json\. Expected .*found .*fulle\.json",
    ),
    "not unpacked": (_zipped, "SFHQ.zip is not unpacked"),
    "no split": (lambda place: (place / "split.json").unlink(), r"split\.json is missing: it says who"),
    "missing column": (
        _rows(lambda rows: rows[1].pop("qa_list")),
        r"full\.json row 2 \(unique_id 00062002\): qa_list holds no question",
    ),
    "missing field": (
        _rows(lambda rows: rows[1]["qa_list"][0].pop("answer")),
        r"row 2 .*qa_list\[1\]\.answer is missing",
    ),
    "bad JSON": (lambda place: (place / "full.json").write_text('[{"unique_id": 1,'), r"full\.json.* no valid JSON"),
    "unreadable image": (_cut, "cannot be decoded"),
    "wrong split name": (
        lambda place: (place / "split.json").write_text('{"forget_5": ["00062002"]}'),
        "Unknown list of .*'forget5'. Did you mean forget_5",
    ),
    "stranger in the split": (
        lambda place: (place / "split.json").write_text('{"forget5": ["1", "00062002"]}'),
        "split.json forgets 1, who are not in full.json",
    ),
    "duplicate id": (
        _rows(lambda rows: rows[4].update(unique_id=PEOPLE[0])),
        r"row 5 .*unique_id 00062001 occurs twice",
    ),
}
