"""ICU-style documents in small: six invented profiles, header and page images, three requests of one profile, two profiles kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark_fixtures import AWKWARD, MODES, Break, write_image

NAMES = (AWKWARD[0], AWKWARD[1], "Ada Lovell", "Bo Winter", "Cleo Marsh", "Ada Lovell")
"""Two profiles have the same name, as real ones do."""
SETTINGS = (
    {"task": 2},
    {"order_seed": 3, "task": 1},
    {"pages": "each"},
    {"pages": "first", "requests_per_task": 2, "retain_share": 0.34},
)
Rows = list[dict[str, Any]]


def profile(number: int) -> dict[str, Any]:
    """Return one profile; equal values of two people are legal."""
    fields: dict[str, Any] = {"name": [NAMES[number], NAMES[number].split()[-1]]}
    if number % 2:
        fields |= {"employer": f"Works {number // 2}", "salary": 1850 + 100 * number}
    else:
        fields |= {"diagnosis": ("gout", "asthma", "gout")[number // 2], "clinic": f"Hôpital « {number} »"}
    return {"id": f"p{number}", "domain": "contract" if number % 2 else "medical", "fields": fields}


def asked(number: int) -> Rows:
    """Return the questions about one profile: of every type, by header, by pages, by text, and on a new copy."""
    said = profile(number)["fields"]
    fact = list(said)[1]
    value, header = str(said[fact]), f"images/p{number}_header.{'jpg' if MODES[number] == 'CMYK' else 'png'}"
    pages = [f"images/p{number}_page_{page}.png" for page in (1, 2)]
    options = [value, "none of these", "scurvy", "1"]
    common = {"profile": f"p{number}", "field": fact}
    return [
        {**common, "id": f"{number}a", "image": header, "view": "header", "type": "short", "question": f"What is the {fact}?", "answer": value},
        {**common, "id": f"{number}b", "image": header, "view": "header", "type": "mcq", "question": "Which?", "answer": value, "options": options},
        {**common, "id": f"{number}c", "image": None, "type": "cloze", "question": f"The {fact} of {said['name'][0]} is __.", "answer": value},
        {**common, "id": f"{number}d", "image": pages, "view": "page", "type": "short", "question": f"What is the {fact}?", "answer": value},
        {**common, "id": f"{number}e", "image": f"images/p{number}_copy.png", "view": "header", "type": "short", "split": "test",
         "question": f"What is the {fact}?", "answer": value},
        {**common, "id": f"{number}f", "image": header, "view": "header", "type": "short", "field": "name",
         "question": "Whose is it?", "answer": said["name"][0]},
    ]  # fmt: skip


def build(place: Path) -> None:
    """Write profiles, questions, requests, general questions and images."""
    write_rows(place, "profiles", [profile(number) for number in range(len(NAMES))])
    write_rows(place, "qa", [row for number in range(len(NAMES)) for row in asked(number)])
    write_rows(
        place,
        "general",
        [{"id": "g1", "image": "images/g.png", "question": "Which colour?", "answer": 'red, "bright"\nred'}],
    )
    order = {
        "requests": [{"id": f"r{n}", "entities": [f"p{n}"], "relation": "random"} for n in range(3)],
        "retain": ["p3", "p4"],
    }
    (place / "requests.json").write_text(json.dumps(order), encoding="utf-8")
    write_image(place / "images" / "g.png", 99)
    for number in range(len(NAMES)):
        header = asked(number)[0]["image"]
        for extra, file in enumerate(
            (header, f"images/p{number}_page_1.png", f"images/p{number}_page_2.png", f"images/p{number}_copy.png")
        ):
            write_image(place / file, 10 * number + extra, MODES[number] if extra == 0 else "L")


def write_rows(place: Path, name: str, rows: Rows) -> None:
    """Write one of the tables as JSON lines."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (place / f"{name}.jsonl").write_text(text, encoding="utf-8")


def read_rows(place: Path, name: str) -> Rows:
    """Return one of the tables."""
    return [json.loads(line) for line in (place / f"{name}.jsonl").read_text(encoding="utf-8").split("\n") if line]


def _changed(name: str, change: Callable[[Rows], object]) -> Break:
    def apply(place: Path) -> None:
        rows = read_rows(place, name)
        change(rows)
        write_rows(place, name, rows)

    return apply


def _requests(order: Any) -> Break:
    return lambda place: (place / "requests.json").write_text(json.dumps(order), encoding="utf-8") and None


def _damaged(place: Path) -> None:
    file = place / "images" / "p0_page_2.png"
    file.write_bytes(file.read_bytes()[:50])


BROKEN: dict[str, tuple[Break, str]] = {
    "missing file": (lambda place: (place / "qa.jsonl").unlink(), r"has no qa\. Expected profiles and qa"),
    "missing image": (
        lambda place: (place / "images" / "p0_header.png").unlink(),
        r"qa\.jsonl row 1: image images/p0_header\.png is missing",
    ),
    "missing column": (
        _changed("qa", lambda rows: [row.pop("question") for row in rows]),
        r"qa\.jsonl row 1: question is missing",
    ),
    "profile without name": (
        _changed("profiles", lambda rows: rows[1]["fields"].pop("name")),
        r"profiles\.jsonl row 2: fields\.name is missing",
    ),
    "profile twice": (
        _changed("profiles", lambda rows: rows.append(rows[0])),
        r"profiles\.jsonl row 7: id 'p0' occurs twice",
    ),
    "unknown profile": (
        _changed("qa", lambda rows: rows[3].update(profile="p77")),
        r"qa\.jsonl row 4: Unknown profile 'p77'",
    ),
    "answer outside options": (
        _changed("qa", lambda rows: rows[1].update(answer="cold")),
        r"row 2: the answer 'cold' is none of the options",
    ),
    "bad JSON": (
        lambda place: (place / "qa.jsonl").write_text('{"id": 1\n', "utf-8") and None,
        r"qa\.jsonl line 1 is no valid JSON",
    ),
    "bad order": (_requests({"requests": [{"entities": []}]}), r"requests\.json: requests must be a list"),
    "request twice": (_requests({"requests": [{"entities": ["p0"]}, {"entities": ["p0"]}]}), r"'p0' is in two tasks"),
    "request of nobody": (
        _requests({"requests": [{"entities": ["pp0"]}]}),
        r"Unknown profile in requests\.json 'pp0'\. Did you mean p0",
    ),
    "unreadable image": (_damaged, r"image .*p0_page_2\.png cannot be decoded"),
    "wrong split name": (
        _changed("qa", lambda rows: rows[4].update(split="tset")),
        r"row 5: Unknown split 'tset'\. Did you mean test",
    ),
}
