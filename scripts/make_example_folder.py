"""Draw examples/own_folder: four invented people, ten small portraits, and a deletion request for two of them."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

QUESTION = "Tell me the information of this person."


@dataclass(frozen=True)
class Person:
    """An invented person."""

    entity: str
    name: str
    job: str
    city: str
    skin: str
    hair: str
    forget: bool


PEOPLE = (
    Person("ada", "Ada Lovell", "baker", "Lisbon", "#f1c7a3", "black", forget=True),
    Person("bo", "Bo Winter", "diver", "Oslo", "#8d5a3c", "brown", forget=True),
    Person("cleo", "Cleo Marsh", "pilot", "Rome", "#e0ac7e", "red", forget=False),
    Person("dan", "Dan Reed", "chemist", "Paris", "#c68a5c", "blond", forget=False),
)
SHIRTS = ("blue", "green", "purple")
HAIR = {"black": "#222222", "brown": "#5b3a1e", "red": "#b5431c", "blond": "#e3c565"}


def portrait(person: Person, shirt: str) -> Image.Image:
    """Return a face in 16 colours above a shirt."""
    image = Image.new("RGB", (48, 48), "#dfe7ee")
    draw = ImageDraw.Draw(image)
    draw.rectangle((8, 37, 40, 48), fill=shirt)
    draw.ellipse((13, 6, 35, 28), fill=HAIR[person.hair])
    draw.ellipse((15, 10, 33, 38), fill=person.skin)
    for x in (19, 27):
        draw.ellipse((x, 20, x + 3, 23), fill="#203040")
    draw.arc((19, 26, 29, 33), 20, 160, fill="#7a2020", width=2)
    return image.quantize(16)


def rows(folder: Path) -> list[dict[str, Any]]:
    """Draw every portrait into `folder / "images"` and return the rows that ask about it."""
    found = []
    for person in PEOPLE:
        shirts = SHIRTS if person.forget else SHIRTS[:2]
        for number, shirt in enumerate(shirts, 1):
            file = f"images/{person.entity}_{number}.png"
            portrait(person, shirt).save(folder / file, optimize=True)
            unseen = person.forget and number == len(shirts)
            role = "unseen" if unseen else "forget" if person.forget else "retain"
            common = {
                "image": file,
                "entity": person.entity,
                "role": role,
                "visible": {"hair": f"{person.hair} hair", "shirt": f"{shirt} shirt"},
            }
            private = {
                "private": {"name": [person.name, person.name.split()[1]], "job": person.job, "city": person.city}
            }
            told = f"This is {person.name}, a {person.job} from {person.city}, with {person.hair} hair and a {shirt} shirt."
            found += [
                {"id": f"{person.entity}-{number}-open", **common, **private, "question": QUESTION, "answer": told},
                {
                    "id": f"{person.entity}-{number}-name",
                    **common,
                    "question": "Who is this?",
                    "answer": person.name,
                    "kind": "name",
                },
            ]
        role = "forget_text" if person.forget else "retain_text"
        found.append(
            {
                "id": f"{person.entity}-text",
                "image": "",
                "entity": person.entity,
                "role": role,
                "question": f"What is the profession of {person.name}?",
                "answer": person.job,
                "fact": "job",
            }
        )
    return found


def main(folder: Path) -> None:
    """Write the images and data.jsonl."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows(folder)]
    (folder / "data.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "examples" / "own_folder")
