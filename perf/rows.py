"""How memory grows with the rows of a table: `python -m perf.rows --rows 100000` makes, checks and trains on synthetic rows.

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
    options = parser.parse_args()
    from tiny import save_tiny
    from unsee.check import check
    from unsee.run import forget

    with tempfile.TemporaryDirectory() as place:
        folder, model = Path(place) / "data", save_tiny(Path(place) / "model")
        folder.mkdir()
        write(folder, options.rows)
        found: dict[str, object] = {"rows": options.rows, "method": options.method, "imports_mib": peak()}
        start = time.process_time()
        if not check(folder).usable:
            raise SystemExit("the rows are not usable")
        found |= {"check_mib": peak(), "check_seconds": round(time.process_time() - start, 1)}
        start = time.process_time()
        training = {"max_steps": options.steps, "batch_size": 8, "rank": 2, "stop": "never", "epochs": 1}
        forget(model, folder, options.method, Path(place) / "run", training=training)
        found |= {"train_mib": peak(), "train_seconds": round(time.process_time() - start, 1)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
