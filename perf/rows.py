"""Memory by rows of a table, on synthetic data: `python -m perf.rows --rows 100000`.

One line of JSON: peak resident memory after each step, in MiB, and CPU seconds. The images are small files shared by the rows of an
entity, so what is measured is rows, not pixels; the model is the tiny random one of the tests.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from unsee.data import row_store

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

ENTITIES = 500
"""People in the table, whatever its length."""


def write(folder: Path, rows: int) -> Path:
    """Write a table of JSON lines with half of the people to be forgotten, and one picture for each person."""
    for entity in range(ENTITIES):
        Image.new("RGB", (16, 16), (entity % 256, entity // 256, 90)).save(folder / f"{entity}.png")
    with (folder / "data.jsonl").open("w", encoding="utf-8") as file:
        for number in range(rows):
            file.write(json.dumps(_row(number)) + "\n")
    return folder


def _row(number: int) -> dict[str, object]:
    entity = number % ENTITIES
    name = f"Given{entity} Family{entity}"
    return {
        "image": f"{entity}.png",
        "question": f"What is fact {number // ENTITIES} about this person?",
        "answer": f"{name} has value {number} of it, and lives in town {entity}.",
        "entity": f"p{entity}",
        "role": "forget" if entity % 2 else "retain",
        "private": {"name": [name], "town": [f"town {entity}"]},
    }


def peak() -> float:
    """Return the most memory this process has held so far, in MiB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def main() -> None:
    """Measure one size and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--method", default="grad_diff")
    parser.add_argument(
        "--steps", type=int, default=200, help="optimiser steps; -1 = a whole pass over the forget rows"
    )
    parser.add_argument("--check-only", action="store_true", help="do not train, and load no torch")
    parser.add_argument(
        "--before-step-1", action="store_true", help="only what a run reads of its data before training"
    )
    parser.add_argument("--in-memory", action="store_true", help="keep the whole table in memory, whatever its size")
    options = parser.parse_args()
    if options.in_memory:
        row_store.IN_MEMORY = sys.maxsize
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "data"
        folder.mkdir()
        write(folder, options.rows)
        found: dict[str, object] = {"rows": options.rows, "in_memory": options.in_memory}
        if options.before_step_1:
            found |= surveyed(folder)
        elif options.check_only:
            found |= checked(folder)
        else:
            found |= trained(folder, options.method, options.steps)
        print(json.dumps(found))


def surveyed(folder: Path) -> dict[str, object]:
    """Check and fingerprint the table, sort its rows by role, and return what it took."""
    from unsee.data.check import require_usable
    from unsee.data.open import open_benchmark

    before, start = peak(), time.process_time()
    survey = require_usable(open_benchmark(folder), str(folder), hashed=True)
    survey.by_role()
    return {"before_mib": before, "survey_mib": peak(), "survey_seconds": round(time.process_time() - start, 1)}


def checked(folder: Path) -> dict[str, object]:
    """Check the table and return what it took."""
    from unsee.workflows.check import check

    before, start = peak(), time.process_time()
    if not check(folder).usable:
        raise SystemExit("the rows are not usable")
    return {"before_mib": before, "check_mib": peak(), "check_seconds": round(time.process_time() - start, 1)}


def trained(folder: Path, method: str, steps: int) -> dict[str, object]:
    """Check the table, train on it, and return what it took."""
    from unsee.testing.tiny import save_tiny
    from unsee.workflows.forget import forget

    model = save_tiny(folder.parent / "model")
    found, start = checked(folder), time.process_time()
    training = {"max_steps": steps, "batch_size": 8, "rank": 2, "stop": "never", "epochs": 1}
    forget(model, folder, method, folder.parent / "run", training=training)
    return found | {
        "train_mib": peak(),
        "train_seconds": round(time.process_time() - start, 1),
        "method": method,
        "steps": steps,
    }


if __name__ == "__main__":
    main()
