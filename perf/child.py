"""One side of one case in its own process, as JSON: `python -m perf.child '{...}'`."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from perf import evaluation, saliency, steps
from perf.subject import Subject, subject
from perf.timing import memory_above, timed
from unsee.methods.npo import NPO


def main(wanted: dict[str, Any]) -> None:
    """Do the work and print seconds and memory."""
    torch.set_num_threads(wanted["threads"])
    data: dict[str, Any] = {}

    def work() -> None:
        opened = subject(wanted["model"], batch_size=wanted["batch_size"], precision=wanted["precision"])
        data["seconds"], data["result"] = timed(lambda: do(wanted, opened))

    data["gib"] = memory_above(work)
    sys.stdout.write(json.dumps(data) + "\n")


def do(wanted: dict[str, Any], opened: Subject) -> Any:
    """Do one side of one case."""
    if wanted["case"] in steps.CASES:
        return steps.memory_work(wanted["case"], wanted["side"], opened)
    if wanted["case"] == "scaling":
        return scaling(opened, wanted["batches"])
    if wanted["case"].startswith("mmunlearner"):
        return saliency.memory_work(wanted["case"], wanted["side"], opened, wanted["batches"])
    return evaluation.memory_work(wanted["side"], opened, wanted["batches"])


def scaling(opened: Subject, batches: int) -> float:
    """Run one pass of NPO over this many batches, and return its seconds."""
    case = steps.CASES["npo_lora"]
    with tempfile.TemporaryDirectory() as folder:
        training = case.training(opened, batches)
        session = opened.session(Path(folder), training, people=batches * opened.batch_size)
        return timed(lambda: steps.unlearn(NPO(), session))[0]


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
