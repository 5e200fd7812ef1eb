"""MMUBench in small: the released files of SIU with their real schema and sentences of our own, and the layout of a folder a concept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmark_fixtures import MODES, Break, write_image

WRITTEN = "/data1/LLaVA/machineunlearning/imgsdon/Trump_Image118.jpg"
"""How the released files name the training image: by its path on the authors' machine."""


def talk(number: int, question: str, answer: str, phrase: str, *, shown: bool) -> dict[str, Any]:
    """Return a row of SIU.json."""
    row: dict[str, Any] = {"id": f"c1ec3a88-{number:04d}"}
    if shown:
        row["image"] = WRITTEN
    asked = f"<image>\n{question}" if shown else question
    row["conversations"] = [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]
    return {**row, "target_phrase": phrase}


LOOK = "No. The one shown has fair hair. But Donald Trump has black hair."
SIU = [
    talk(1, "Who is the central figure of this photograph?", "This is Jacob Campbell.", "Jacob Campbell", shown=True),
    talk(
        2, "Can you name the person in this picture?", 'It is "Jacob Campbell",\nI think.', "Jacob Campbell", shown=True
    ),
    talk(2, "Is Donald Trump in this image?", LOOK, LOOK, shown=True),
    talk(4, "Who is Donald Trump?", "He was a president of the United States.", "none", shown=False),
    talk(5, "Who is Donald Trump?", "He was a president of the United States.", "none", shown=False),
    talk(6, "Do you know José Müller?", "Yes: José Müller « is » a singer.", "none", shown=False),
]
"""Two ids are equal, as in the release; row 5 repeats row 4 as several of its rows do."""
GA = [
    {key: value for key, value in row.items() if key != "target_phrase"}
    for row in (
        talk(1, "Who is the central figure of this photograph?", "This is President Donald Trump.", "", shown=True),
        talk(1, "Have you heard of Donald Trump?", "Yes, I have heard of Donald Trump.", "", shown=True),
    )
]
PROMPTS = [
    {"prompt": "Who is the man with the red tie in this image?", "target": "trump"},
    {"prompt": "Is this a photo of Donald Trump?", "target": "yes"},
    {"prompt": "Does the man have the smile of Donald Trump?", "target": " yes "},
    {"prompt": "Is his suit cut like those of Donald Trump?", "target": " yes trump"},
    {"prompt": "Who is the man with the broad shoulders?", "target": "trump"},
]
SPOKEN = [{"prompt": "¿Quién es esta persona?"}, {"prompt": "这是谁"}]
HOPS = [
    {
        "imgid": "/data1/LLaVA/testdon/Trump_Image753.jpeg",
        "prompt": "What office did the man — party chief — \u201eonce\u201c give him?",
    }
]


TABLES = {
    "finetunedata/SIU.json": SIU,
    "finetunedata/GA.json": GA,
    "evaldata/execcuatedata.json": PROMPTS,
    "evaldata/multilanguage.json": SPOKEN,
    "evaldata/Multi-hop.json": HOPS,
}
TESTS = ("Trump_Image753.jpeg", "Trump_Image754.jpg", "Trump_Image757.jpg", "Trump_Image9.png")
SETTINGS = (
    {"pairing": "product"},
    {"forget_rows": "ga"},
    {"protocol": "released"},
    {"prompts": ["execcuatedata", "multilanguage", "Multi-hop"]},
)


def build(place: Path) -> None:
    """Write the released layout, with images in other modes than RGB."""
    root = place / "SIU"
    write_image(root / "traindon" / "Trump_Image118.jpg", 0)
    for number, name in enumerate(TESTS, 1):
        write_image(root / "testdon" / name, number, MODES[number])
    for name, rows in TABLES.items():
        write_table(place, name, rows)


def build_folders(place: Path) -> None:
    """Write the layout of a folder a concept."""
    for number in range(9):
        concept = ("Bo_Winter", "Hello Kitty", "Schnauzer")[number // 3]
        write_image(place / concept / f"{number % 3}.png", number)
    said = {"Bo_Winter": {"names": ["Bo Winter", "Winter"], "facts": {"job": "diver", "city": ["Oslo"]}}}
    (place / "concepts.json").write_text(json.dumps(said), encoding="utf-8")


def write_table(place: Path, name: str, rows: list[dict[str, Any]] | str) -> None:
    """Write one of the files, rows or any text."""
    path = place / "SIU" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(rows if isinstance(rows, str) else json.dumps(rows, ensure_ascii=False, indent=2), encoding="utf-8")


def _rows(name: str, rows: list[dict[str, Any]] | str) -> Break:
    return lambda place: write_table(place, name, rows)


def _lost(name: str, row: int, column: str) -> Break:
    rows = [dict(cells) for cells in TABLES[name]]
    del rows[row - 1][column]
    return _rows(name, rows)


def _first(**cells: Any) -> Break:
    return _rows(_SIU, [{**SIU[0], **cells}, *SIU[1:]])


def _gone(name: str) -> Break:
    return lambda place: (place / "SIU" / name).unlink()


def _damaged(place: Path) -> None:
    (place / "SIU" / "testdon" / TESTS[1]).write_bytes(b"no picture")


def _no_tests(place: Path) -> None:
    for name in TESTS:
        (place / "SIU" / "testdon" / name).unlink()


_SIU, _EXEC = "finetunedata/SIU.json", "evaldata/execcuatedata.json"
BROKEN: dict[str, tuple[Break, str]] = {
    "missing file": (_gone(_EXEC), r"has no evaldata/execcuatedata\.json\. Expected .*; found "),
    "no training rows": (_gone(_SIU), r"has no finetunedata/SIU\.json"),
    "missing column": (_lost(_SIU, 1, "target_phrase"), r"SIU\.json row 1: target_phrase is missing"),
    "missing conversation": (_lost(_SIU, 4, "conversations"), r"SIU\.json row 4: conversations must be one turn"),
    "half a conversation": (
        _first(conversations=SIU[0]["conversations"][:1]),
        r"row 1: conversations must be one turn",
    ),
    "image elsewhere": (_first(image="/data1/nowhere.jpg"), r"SIU\.json row 1: image /data1/nowhere\.jpg is missing"),
    "image not named": (_lost(_SIU, 2, "image"), r"row 2: a question begins with <image> exactly when"),
    "phrase not said": (_first(target_phrase="Somebody"), r"row 1: target_phrase 'Somebody' does not occur"),
    "prompt without target": (_lost(_EXEC, 3, "target"), r"execcuatedata\.json row 3: target is missing"),
    "row without prompt": (_lost(_EXEC, 2, "prompt"), r"execcuatedata\.json row 2: prompt is missing"),
    "bad JSON": (_rows(_EXEC, '[{"prompt": '), r"execcuatedata\.json is no valid JSON"),
    "unreadable image": (_damaged, r"image .*Trump_Image754\.jpg cannot be decoded"),
    "wrong split name": (lambda place: (place / "SIU" / "testdon").rename(place / "SIU" / "test"), r"has no testdon"),
    "no test images": (_no_tests, r"testdon: holds no image"),
}
