"""RMLLMU-style data in small: the fixture of MLLMU-Bench with a chain for its open questions, in a layout of ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fixtures_mllmu as mllmu
from benchmark_fixtures import Break

SETTINGS = ({"ratio": 10}, {"prompt": "", "mllmu": {"sets": ["forget", "retain"]}})
Rows = list[dict[str, Any]]


def chains() -> Rows:
    """Return a chain for every open question, in every form that is read."""
    rows: Rows = []
    for number, person in enumerate([*mllmu.PEOPLE, *mllmu.CELEBRITIES]):
        name = mllmu.name_of(person)
        steps = [f"The one asked about is {name}.", f"{name} lives in Lisbon."]
        told: dict[str, Any] = {"reasoning_chain": " ".join(steps)} if number % 2 else {"reasoning_steps": steps}
        rows += [
            {"ID": person, "question": "Describe this person.", "Type": "Image_Textual", "accepted": True, **told},
            {"ID": person, "question": f"Who is {name}?", "Type": "Pure_Text", "evidence": ["biography"], **told},
        ]
        if person in mllmu.PEOPLE:
            asked = "Where does this person live?"
            rows.append({"ID": person, "question": asked, "generator": "m", "verifier": "n", **told})
    rows.append(
        {"ID": "101", "question": f'Is this "{mllmu.name_of("101")}"?', "accepted": "false", "reasoning_chain": "No."}
    )
    return rows


def build(place: Path) -> None:
    """Write chains and what follows from what beside a clone of MLLMU-Bench."""
    mllmu.build(place / "MLLMU-Bench")
    write_chains(place, chains())
    (place / "implies.json").write_text(json.dumps({"Lisbon": "Portugal"}), encoding="utf-8")


def write_chains(place: Path, rows: Rows) -> None:
    """Write the chains as JSON lines."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (place / "chains.jsonl").write_text(text, encoding="utf-8")


def _changed(change: Callable[[Rows], object]) -> Break:
    def apply(place: Path) -> None:
        rows = chains()
        change(rows)
        write_chains(place, rows)

    return apply


def _inside(what: str) -> tuple[Break, str]:
    """Return a fault of MLLMU-Bench itself."""
    breaks, message = mllmu.BROKEN[what]
    return (lambda place: breaks(place / "MLLMU-Bench")), message


BROKEN: dict[str, tuple[Break, str]] = {
    "missing file": (lambda place: (place / "chains.jsonl").unlink(), r"has no chains\. Expected chains"),
    "missing column": (
        _changed(lambda rows: [row.pop("question") for row in rows]),
        r"chains\.jsonl row 1: question is missing",
    ),
    "missing chain": (
        _changed(lambda rows: rows[3].pop("reasoning_chain")),
        r"row 4: reasoning_chain is missing, and so is reasoning_steps",
    ),
    "unknown type": (_changed(lambda rows: rows[0].update(Type="Image")), r"row 1: Unknown Type 'image'"),
    "unknown verdict": (
        _changed(lambda rows: rows[0].update(accepted="perhaps")),
        r"row 1: Unknown accepted 'perhaps'",
    ),
    "chain twice": (
        _changed(lambda rows: rows.append(rows[0])),
        r"row 68: person 101 has a chain for this question in row 1",
    ),
    "chains of other people": (
        _changed(lambda rows: [row.update(ID=f"x{row['ID']}") for row in rows]),
        r"no chain belongs to a question that is read, the first is row 1 \(ID x101\)",
    ),
    "bad JSON": (
        lambda place: (place / "chains.jsonl").write_text("{", "utf-8") and None,
        r"chains\.jsonl line 1 is no valid JSON",
    ),
    "bad implications": (
        lambda place: (place / "implies.json").write_text("[]", "utf-8") and None,
        r"implies\.json must hold one object",
    ),
    **{f"MLLMU-Bench: {what}": _inside(what) for what in list(mllmu.BROKEN)[:4]},
}
