"""Draw answers of evaluations for labelling by hand, and compare the judge with the labels.

    python scripts/label_answers.py draw runs/smol/*/eval --out answers.jsonl --count 300
    python scripts/label_answers.py compare answers.jsonl

`draw` takes answers of each run and each class of the judge in turn, without saying which class it was, with `label` and `why` to
be filled in. `compare` prints the confusion matrix, and precision and recall of each class.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from unsee.api import Response, Role
from unsee.benchmarks.lab import Lab
from unsee.metrics.aftermath import Aftermath, possible
from unsee.utils.files import read_jsonl

ASKED = (Role.FORGET, Role.UNSEEN, Role.FORGET_TEXT)
VOCABULARY = Lab(request="english").vocabulary()


def judged(response: Response) -> str:
    """Return the class of the judge; several possible ones are joined."""
    return "|".join(sorted(possible(response, VOCABULARY)))


def draw(folders: Sequence[Path], count: int) -> Iterator[dict[str, Any]]:
    """Yield different answers, one of each run and class in turn."""
    piles: dict[tuple[str, str], list[Response]] = defaultdict(list)
    for number, folder in enumerate(folders):
        for response in map(Response.from_json, read_jsonl(folder / "responses.jsonl")):
            if response.role in ASKED and response.kind in ("open", "name", "fact"):
                piles[f"{number:03d}", judged(response)].append(response)
    rng, texts = random.Random(0), set()
    for pile in piles.values():
        rng.shuffle(pile)
    while count and any(piles.values()):
        for place in sorted(piles):
            while piles[place] and (response := piles[place].pop()).text in texts:
                pass
            if response.text in texts or not count:
                continue
            texts.add(response.text)
            count -= 1
            yield response.to_json() | {"label": "", "why": ""}


def rows(file: Path) -> list[tuple[Response, str]]:
    """Return answers and labels."""
    made = []
    for row in read_jsonl(file):
        label = row.pop("label")
        row.pop("why")
        made.append((Response.from_json(row), label))
    return made


def confusion(labelled: Sequence[tuple[Response, str]]) -> Counter[tuple[str, str]]:
    """Return how often which label (first) met which class of the judge (second)."""
    return Counter((label, judged(response)) for response, label in labelled)


def shares(matrix: Counter[tuple[str, str]]) -> dict[str, tuple[float, float]]:
    """Return precision and recall of each class that occurs."""
    made = {}
    for name in Aftermath:
        right = matrix[name, name]
        said = sum(n for (_, second), n in matrix.items() if second == name)
        true = sum(n for (first, _), n in matrix.items() if first == name)
        if said and true:
            made[str(name)] = (right / said, right / true)
    return made


def main() -> None:
    """Draw or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["draw", "compare"])
    parser.add_argument("places", nargs="+", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--count", type=int, default=300)
    asked = parser.parse_args()
    if asked.action == "draw":
        lines = [json.dumps(row, ensure_ascii=False) for row in draw(asked.places, asked.count)]
        (asked.out or Path("answers.jsonl")).write_text("\n".join(lines) + "\n", encoding="utf-8")
        return
    matrix = confusion(rows(asked.places[0]))
    names = sorted({name for pair in matrix for name in pair})
    print("label \\ judge", *names, sep=" | ")
    for first in sorted({first for first, _ in matrix}):
        print(first, *(matrix[first, second] for second in names), sep=" | ")
    for name, (precision, recall) in shares(matrix).items():
        print(f"{name}: precision {precision:.3f}, recall {recall:.3f}")


if __name__ == "__main__":
    sys.exit(main())
