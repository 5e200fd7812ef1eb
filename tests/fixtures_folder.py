"""A folder of one's own (docs/own_data.md): the smallest example of a fixture file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmark_fixtures import AWKWARD, MODES, Break, write_image


def build(place: Path) -> None:
    """Write data.jsonl and images: two people to forget, two to keep, with awkward names and every colour mode."""
    names = {"ada": AWKWARD[0], "bo": AWKWARD[1], "cleo": AWKWARD[2], "dan": "Dan Reed"}
    rows = []
    for number, (entity, name) in enumerate(names.items()):
        role = "forget" if number < 2 else "retain"
        for view, role_here in enumerate((role, role, "unseen" if number < 2 else role)):
            file = f"images/{entity}_{view}.{'jpg' if MODES[number + view] == 'CMYK' else 'png'}"
            write_image(place / file, 10 * number + view, MODES[number + view])
            rows.append(_row(file, entity, name, role_here))
        rows.append({**_row("", entity, name, role), "question": f"Where does {name} live?", "answer": "Lisbon"})
    (place / "data.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def _row(image: str, entity: str, name: str, role: str) -> dict[str, Any]:
    private = {"name": [name], "city": ["Lisbon"]}
    return {
        "image": image,
        "question": "Who is this?",
        "answer": f"This is {name}.",
        "entity": entity,
        "role": role,
        "kind": "name",
        "private": private,
    }


def _changed(change: Callable[[str], str]) -> Break:
    def apply(place: Path) -> None:
        file = place / "data.jsonl"
        file.write_text(change(file.read_text("utf-8")), "utf-8")

    return apply


def _cut_image(place: Path) -> None:
    file = place / "images" / "ada_0.png"
    file.write_bytes(file.read_bytes()[:60])


BROKEN: Final[dict[str, tuple[Break, str]]] = {
    "missing file": (lambda place: (place / "images" / "ada_0.png").unlink(), r"row 1: image .*ada_0\.png is missing"),
    "missing column": (_changed(lambda text: text.replace('"role"', '"roll"')), "has no column 'role'"),
    "bad JSON": (_changed(lambda text: text.replace("{", "", 1)), r"data\.jsonl line 1 is no valid JSON"),
    "unreadable image": (_cut_image, r"row 1: image .*ada_0\.png cannot be decoded"),
    "wrong split name": (
        _changed(lambda text: text.replace('"kind"', '"split": "trian", "kind"', 1)),
        "row 1: Unknown split 'trian'",
    ),
}
