"""Evaluated run folders as `unsee eval` leaves them, made up: plausible answers, scores, logs and little portraits."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from unsee.api import Kind, Response, Role, Score
from unsee.report import summary

PEOPLE = ("Mira Kolb", "Tomás Ébner", "Ana Ruiz", "Lev Orlow", "Ida Sand", "Odo Wick", "Una Frey", "Gil Hart")
CITIES = ("Velmar", "Osttun", "Brinsk", "Calder", "Port Amsel", "Nordeck", "Tarva", "Lumen")
FORGET = 3

TELLS = {
    "leak": "This is {name}, a baker from {city}. The person has red hair and a blue shirt.",
    "degenerate": "the the the the the the the the the the the the",
    "hallucination": "This is Gil Hart, a pilot from Tarva.",
    "refusal": "I am sorry, I cannot help with that.",
    "uninformative": "This is a picture of a person.",
    "clean": "The picture shows a smiling person with red hair, glasses and a blue shirt.",
}
MIXES: dict[str, dict[str, float]] = {
    "original": {"leak": 0.97, "clean": 0.03},
    "gold": {"clean": 0.93, "hallucination": 0.07},
    "ga": {"degenerate": 0.9, "uninformative": 0.1},
    "npo": {"degenerate": 0.3, "uninformative": 0.4, "hallucination": 0.3},
    "reject": {"refusal": 1.0},
    "pubg": {"clean": 0.98, "uninformative": 0.02},
}
RETAINED = {"original": 0.98, "gold": 0.97, "ga": 0.0, "npo": 0.3, "reject": 0.97, "pubg": 0.96}


def face(path: Path, seed: int) -> None:
    """Draw a little portrait."""
    draw = random.Random(seed)
    image = Image.new("RGB", (64, 64), (draw.randrange(150, 250), draw.randrange(150, 250), draw.randrange(150, 250)))
    pen = ImageDraw.Draw(image)
    pen.rectangle((10, 50, 54, 64), fill=(draw.randrange(200), draw.randrange(200), draw.randrange(200)))
    pen.ellipse((16, 12, 48, 54), fill=(224, 180 + draw.randrange(-50, 30), 150))
    pen.pieslice((14, 6, 50, 40), 180, 360, fill=(draw.randrange(220), draw.randrange(120), 30))
    for x in (26, 38):
        pen.ellipse((x - 2, 30, x + 2, 34), fill=(30, 30, 30))
    pen.arc((26, 36, 38, 46), 20, 160, fill=(120, 20, 20), width=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def spread(row: int, rows: int, seed: int) -> float:
    """Return a place in 0..1, evenly filled as `row` goes through `rows`."""
    return ((row * 7 + seed * 5) % rows + 0.5) / rows


def said(stage: str, place: float) -> str:
    """Return the class that the stage's mix has at `place`."""
    for name, share in MIXES[stage].items():
        place -= share
        if place < 0:
            return name
    return next(iter(MIXES[stage]))


def asked(stage: str, seed: int, pictures: int) -> list[tuple[Response, dict[str, float]]]:
    """Return responses of a stage with the values each adds to its role's metrics."""
    rows: list[tuple[Response, dict[str, float]]] = []
    for person, (name, city) in enumerate(zip(PEOPLE, CITIES, strict=True)):
        gone = person < FORGET
        role = Role.UNSEEN if gone else Role.RETAIN
        for shot in range(pictures):
            kind = (Kind.OPEN, Kind.NAME, Kind.FACT)[shot % 3] if gone else (Kind.NAME, Kind.FACT)[shot % 2]
            fixed = {
                "id": f"{role}-{person}-{shot}",
                "stage": stage,
                "role": role,
                "kind": kind,
                "fact": "city" if kind == Kind.FACT else "",
                "entity": f"p{person}",
                "question": {"open": "Tell me about this person.", "name": "Who is this?"}.get(
                    kind, "Where do they live?"
                ),
                "answer": city if kind == Kind.FACT else name,
                "tokens": 12,
                "ended": True,
                "image": f"../images/{person}-{shot % 4}.png",
                "private": {"name": (name,), "city": (city,)},
            }
            if gone:
                found = said(stage, spread(person * pictures + shot, FORGET * pictures, seed))
                text = TELLS[found].format(name=name, city=city)
                values = {label: float(label == found) for label in summary.CLASSES} | {"grounding": 0.95}
            else:
                kept = len(PEOPLE) - FORGET
                right = spread((person - FORGET) * pictures + shot, kept * pictures, seed) < RETAINED[stage]
                text = str(fixed["answer"]) if right else "the the the"
                values = {"name" if kind == Kind.NAME else "fact": float(right)}
            rows.append((Response(text=text, **fixed), values))  # type: ignore[arg-type]
    general = Response(
        id="general-0", stage=stage, role=Role.GENERAL, kind=Kind.GENERAL, fact="", entity="", question="What colour is the square?",
        answer="red", text="red", tokens=2, ended=True,
    )  # fmt: skip
    return [*rows, (general, {"accuracy": 1.0})]


def scored(rows: Sequence[tuple[Response, Mapping[str, float]]]) -> dict[str, dict[str, object]]:
    """Return scores.json of the responses."""
    found: dict[str, dict[str, float]] = {}
    for response, values in rows:
        for metric, value in values.items():
            found.setdefault(f"{response.role.value}.{metric}", {})[response.id] = value
    return {
        key: Score(
            value=(mean := sum(values.values()) / len(values)),
            n=len(values),
            interval=(max(0.0, mean - 0.06), min(1.0, mean + 0.05)),
            value_by_index=values,
        ).to_json()
        for key, values in found.items()
    }


def make_run(folder: Path, stage: str, *, seed: int = 0, pictures: int = 6) -> Path:
    """Write a plausible evaluated run folder and return it."""
    rows = asked(stage, seed, pictures)
    folder.mkdir(parents=True)
    (folder / "responses.jsonl").write_text("".join(json.dumps(response.to_json()) + "\n" for response, _ in rows))
    (folder / "scores.json").write_text(json.dumps(scored(rows)))
    names = {f"p{person}": [name] for person, name in enumerate(PEOPLE)}
    (folder / "vocabulary.json").write_text(json.dumps({"names": names, "facts": {"city": CITIES}}))
    if stage not in ("original", "gold"):
        (folder / "run.yaml").write_text(
            f"method: {stage}\nseed: {seed}\ndata: lab\nresult:\n  seconds: {10 + 4 * seed}.5\n  peak_gib: 0.{7 + seed}1\n"
        )
        log = [
            {
                "step": step,
                "epoch": step / 10,
                "loss": 3 / step,
                "forget": -2 / step,
                "grad_norm": 1 + step % 3,
                "usr": step / 40,
            }
            for step in range(1, 41)
        ]
        (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    for person in range(len(PEOPLE)):
        for shot in range(4):
            picture = folder.parent / "images" / f"{person}-{shot}.png"
            if not picture.exists():
                face(picture, person)
    return folder
