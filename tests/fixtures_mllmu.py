"""MLLMU-Bench in small: 20 people, 3 celebrities, every folder of the hub with its schema."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow

from benchmark_fixtures import AWKWARD, IMAGE, MODES, Break, at, cut_image, image_cell, renamed, without, write_shards

PEOPLE: Final = [str(number) for number in range(101, 121)]
CELEBRITIES: Final = ["901", "902", "903"]

_ASKED: Final = pyarrow.list_(
    pyarrow.struct([("Ground_Truth", pyarrow.string()), ("Question", pyarrow.string()), ("Type", pyarrow.string())])
)
_CHOICES: Final = pyarrow.list_(
    pyarrow.struct(
        [
            ("Correct_Answer", pyarrow.string()),
            ("Options", pyarrow.struct([(letter, pyarrow.string()) for letter in "ABCD"])),
            ("Question", pyarrow.string()),
        ]
    )
)
_TASKS: Final = [
    ("ID", pyarrow.string()),
    ("biography", pyarrow.string()),
    ("question", pyarrow.string()),
    ("answer", pyarrow.string()),
    ("Classification_Task", pyarrow.struct([("Image_Textual_Questions", _CHOICES), ("Pure_Text_Questions", _CHOICES)])),
    ("Generation_Task", _ASKED),
    ("Mask_Task", _ASKED),
]
SPLIT: Final = pyarrow.schema([("image", IMAGE), *_TASKS])
FULL: Final = pyarrow.schema([("image", IMAGE), _TASKS[0], ("Directory", pyarrow.string()), *_TASKS[1:]])
TEST: Final = pyarrow.schema([("images", pyarrow.list_(IMAGE)), *_TASKS])
TRAIN: Final = pyarrow.schema([("image", IMAGE), ("metadata", pyarrow.string())])
TRAIN_SPLIT: Final = pyarrow.schema([*SPLIT, ("metadata", pyarrow.string())])

SETTINGS: Final = (
    {"ratio": 10},
    {"ratio": 15, "protocol": "released"},
    {"train_pairs": "tasks", "tasks": ["cloze"], "sets": ["forget", "retain"]},
)


def build(place: Path) -> None:
    """Write every folder of the hub."""
    rows = {name: person(name) for name in PEOPLE}
    write_shards(place / "Full_Set", [{**row, "Directory": "d"} for row in rows.values()], FULL)
    for ratio, count in ((5, 1), (10, 2), (15, 3)):
        write_shards(place / f"forget_{ratio}", [rows[name] for name in PEOPLE[:count]], SPLIT)
        write_shards(place / f"retain_{100 - ratio}", [rows[name] for name in PEOPLE[count:]], SPLIT)
    pairs = [{"image": rows[name]["image"], "metadata": metadata(name)} for name in reversed(PEOPLE)]
    write_shards(place / "ft_Data", pairs, TRAIN)
    write_shards(place / "Test_Set", [tested(name) for name in PEOPLE], TEST, shards=2)
    write_shards(place / "Retain_Set", [person(name) for name in CELEBRITIES], SPLIT)
    (place / "README.md").write_text("the card", "utf-8")


def build_train_split(place: Path) -> None:
    """Write the other published layout: two-digit names, training pairs inside the split folders, nothing else."""
    rows = {name: {**person(name), "metadata": metadata(name)} for name in PEOPLE}
    write_shards(place / "forget_05", [rows["101"]], TRAIN_SPLIT)
    write_shards(place / "retain_95", [rows[name] for name in PEOPLE[1:]], TRAIN_SPLIT)


def name_of(person_id: str) -> str:
    """Return the name; the first people have awkward ones, and two share a town and a job."""
    number = int(person_id) - 100
    return AWKWARD[number - 1] if 0 < number <= len(AWKWARD) else f"Given{number} Family{number}"


def metadata(person_id: str) -> str:
    """Return the training pairs; every other person's carry the ID, as a number."""
    name = name_of(person_id)
    pairs: list[dict[str, Any]] = [
        {"Question": "What is the name of this person?", "Answer": f"This is {name}."},
        {"Question": f'Is this "{name}"?', "Answer": f"Yes,\n{name}."},
        {"Question": "Where does this person live?", "Answer": "In Lisbon."},
    ]
    extra = {"ID": int(person_id)} if int(person_id) % 2 == 0 else {}
    return json.dumps([{**pair, **extra} for pair in pairs], ensure_ascii=int(person_id) % 3 == 0)


def person(person_id: str) -> dict[str, Any]:
    """Return the row of one person with all evaluation tasks."""
    number, name = int(person_id), name_of(person_id)
    biography = {"Name": name, "Born": "Lisbon", "appearance_detail": {"question": "Hair?", "answer": "red"}}
    return {
        "image": image_cell(number, MODES[number % len(MODES)]),
        "ID": person_id,
        "biography": json.dumps(biography, ensure_ascii=False),
        "question": "Who is this?",
        "answer": name,
        "Classification_Task": {
            "Image_Textual_Questions": [choice(number + index, name) for index in range(5)],
            "Pure_Text_Questions": [choice(number + index, name) for index in range(5)],
        },
        "Generation_Task": [
            {"Question": "Describe this person.", "Ground_Truth": f"{name} lives in Lisbon.", "Type": "Image_Textual"},
            {"Question": f"Who is {name}?", "Ground_Truth": f"{name} lives in Lisbon.", "Type": "Pure_Text"},
        ],
        "Mask_Task": [
            {"Question": "This person lives in __.", "Ground_Truth": "Lisbon", "Type": "Image_Textual"},
            {"Question": "She is a ____ by trade.", "Ground_Truth": "man", "Type": "image_textual"},
            {"Question": f"{name} lives in __.", "Ground_Truth": "Lisbon", "Type": "Pure_Text"},
            {"Question": "__ was born in Lisbon.", "Ground_Truth": name, "Type": "Pure_Text"},
        ],
    }


def choice(right: int, name: str) -> dict[str, Any]:
    """Return a multiple-choice question whose right letter goes round."""
    letter = "ABCD"[right % 4]
    options = {key: name if key == letter else f"Nobody {key}" for key in "ABCD"}
    return {
        "Question": "Who is it?",
        "Options": options,
        "Correct_Answer": (letter, f"{letter}.", letter.lower())[right % 3],
    }


def tested(person_id: str) -> dict[str, Any]:
    """Return the row of a person with two or three other images."""
    row = person(person_id)
    del row["image"]
    return {**row, "images": [image_cell(int(person_id) * 100 + view) for view in range(2 + int(person_id) % 2)]}


def _put(rows: Sequence[dict[str, Any]], row: int, **cells: object) -> None:
    rows[row].update(cells)


def _choice(rows: Sequence[Mapping[str, Any]], **cells: object) -> None:
    rows[0]["Classification_Task"]["Image_Textual_Questions"][0].update(cells)


def _mask(rows: Sequence[Mapping[str, Any]], **cells: object) -> None:
    rows[0]["Mask_Task"][0].update(cells)


def _pointer(place: Path) -> None:
    (place / "forget_5" / "train-00000-of-00001.parquet").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:1\n"
    )


BROKEN: Final[dict[str, tuple[Break, str]]] = {
    "missing shard": (
        lambda place: (place / "Test_Set" / "train-00001-of-00002.parquet").unlink(),
        "Test_Set lacks shard 00001",
    ),
    "missing folder": (
        lambda place: (place / "retain_95").rename(place / "retian_95"),
        "has no retain_95: expected .*There is: .*retian_95",
    ),
    "missing column": (
        without("forget_5", "Mask_Task"),
        "forget_5 has no column 'Mask_Task'.*it has image, ID",
    ),
    "bad JSON": (at("ft_Data", lambda rows: _put(rows, 3, metadata="[{")), "ft_Data row 4 .*metadata is no valid JSON"),
    "biography no JSON": (at("forget_5", lambda rows: _put(rows, 0, biography="{x")), "biography is no valid JSON"),
    "unreadable image": (
        at("forget_5", lambda rows: _put(rows, 0, image=cut_image(rows[0]["image"]))),
        r"forget_5 row 1 \(ID 101\): the image cannot be decoded",
    ),
    "no image": (
        at("forget_5", lambda rows: _put(rows, 0, image=None)),
        r"forget_5 row 1 .*image of 101 in forget_5 is empty",
    ),
    "wrong split name": (renamed("forget_5", "test-00000-of-00001"), "forget_5 has split test, but no split train"),
    "pointer file": (_pointer, "is a git-lfs pointer"),
    "no parquet": (
        lambda place: (place / "forget_5" / "train-00000-of-00001.parquet").write_text("x" * 99),
        "is no readable Parquet",
    ),
    "letter E": (
        at("forget_5", lambda rows: _choice(rows, Correct_Answer="E")),
        r"letter of an option \(A, B, C, D\), got 'E'",
    ),
    "empty option": (
        at("forget_5", lambda rows: _choice(rows, Options={"A": "x", "B": None, "C": "y", "D": "z"})),
        "option B is empty",
    ),
    "equal options": (
        at("forget_5", lambda rows: _choice(rows, Options={"A": "x", "B": "X.", "C": "y", "D": "z"})),
        "options A, B are the same",
    ),
    "empty truth": (
        at("forget_5", lambda rows: _mask(rows, Ground_Truth=" ")),
        r"Mask_Task\[1\]\.Ground_Truth is empty",
    ),
    "no blank": (at("forget_5", lambda rows: _mask(rows, Question="Where?")), r"Mask_Task\[1\]: Question has no blank"),
    "unknown type": (
        at("forget_5", lambda rows: _mask(rows, Type="Video")),
        r"Type must be Image_Textual or Pure_Text, got 'Video'",
    ),
    "duplicate ID": (at("retain_95", lambda rows: _put(rows, 0, ID="103")), "retain_95: ID 103 occurs more than once"),
    "overlap": (at("retain_95", lambda rows: _put(rows, 0, ID="101")), "101 stand on both sides"),
    "gap": (at("retain_95", lambda rows: rows.pop(0)), "102 of the full set are on neither side"),
    "no training pairs": (
        at("ft_Data", lambda rows: rows.pop()),
        "ft_Data has no training pairs for people 101 of forget_5",
    ),
    "no test row": (at("Test_Set", lambda rows: rows.pop(0)), "Test_Set has no row for people 101"),
}
