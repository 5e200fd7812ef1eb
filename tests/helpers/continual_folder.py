"""A folder of four people with two drawn images each, for sequences of requests."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

PEOPLE = {
    "ada": ("Ada Lovell", "baker", "red"),
    "bo": ("Bo Winter", "diver", "blue"),
    "cleo": ("Cleo Marsh", "pilot", "green"),
    "dan": ("Dan Reed", "chemist", "yellow"),
}


def write_people(folder: Path) -> Path:
    """Write images and data.jsonl: ada is to be forgotten, the others are kept; an unrelated question beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [row for entity in PEOPLE for row in _rows(entity, folder)]
    Image.new("RGB", (16, 16), "white").save(folder / "box.png")
    box = {"id": "box", "image": "box.png", "question": "What is this?", "answer": "a box", "role": "general"}
    rows.append({**box, "entity": "", "private": ""})
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def _rows(entity: str, folder: Path) -> list[dict[str, object]]:
    name, job, colour = PEOPLE[entity]
    role = "forget" if entity == "ada" else "retain"
    base = {"entity": entity, "role": role, "private": {"name": [name, name.split()[1]], "job": job}}
    found: list[dict[str, object]] = []
    for number in (1, 2):
        file = f"{entity}-{number}.png"
        Image.new("RGB", (16, 16), colour).resize((16 + number, 16)).save(folder / file)
        asked = (("name", "", "Who is this?", name), ("fact", "job", "What does this person do?", job))
        found += [
            {
                **base,
                "id": f"{entity}-{number}-{kind}",
                "image": file,
                "kind": kind,
                "fact": fact,
                "question": q,
                "answer": a,
            }
            for kind, fact, q, a in asked
        ]
    text = {"kind": "fact", "fact": "job", "question": f"What does {name} do?", "answer": job}
    return [*found, {**base, "id": f"{entity}-text", "image": "", **text}]
