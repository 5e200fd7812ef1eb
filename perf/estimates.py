"""Estimated against measured memory: `python -m perf.estimates quick`.

One line and one process per case.

Measured is the peak resident set of `unsee.forget` above the process after a first, tiny run; the C library is told to give
freed blocks back (MALLOC_MMAP_THRESHOLD_), since what it keeps is no need of the run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any, Final

import torch

from perf.memory import ROOT
from perf.subject import WIDTHS, build_model, build_processor
from perf.timing import memory_above
from unsee import estimate, forget

DATA: Final = ROOT / "examples" / "own_folder"
CASES: Final = (
    *(
        {"method": "npo", "tune": t, "precision": p, "batch_size": b}
        for t, p, b in product(("lora", "full"), ("fp32", "bf16"), (1, 4))
    ),
    {"method": "kl", "tune": "lora", "precision": "fp32", "batch_size": 4},
    {"method": "kl", "tune": "full", "precision": "fp32", "batch_size": 2},
    {
        "method": "grad_diff",
        "tune": "lora",
        "precision": "fp32",
        "batch_size": 2,
        "parts": ["vision", "projector", "language"],
    },
    {"method": "ga", "tune": "lora", "precision": "fp32", "batch_size": 4, "gradient_checkpointing": True},
    {"method": "ga", "tune": "lora", "precision": "fp32", "batch_size": 2, "accumulate": 2},
)
"""What is compared: methods, tuning, precision, batch sizes."""


def saved(name: str, folder: Path) -> Path:
    """Write the random model of this size and return its folder."""
    processor = build_processor(WIDTHS[name])
    build_model(WIDTHS[name], processor).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def measured(name: str, case: dict[str, Any]) -> dict[str, float]:
    """Return estimated and measured MiB of a case, run in this process."""
    torch.set_num_threads(1)
    settings = {"max_steps": 2, "stop": "never", "epochs": 9, **case}
    method = settings.pop("method")
    with tempfile.TemporaryDirectory() as place:
        tiny, model = saved("tiny", Path(place) / "tiny"), saved(name, Path(place) / "model")
        forget(tiny, DATA, method, Path(place) / "first" / "run", training=settings)
        guess = estimate(model, DATA, method, Path(place) / "a" / "run", training=settings)
        taken = memory_above(lambda: forget(model, DATA, method, Path(place) / "a" / "run", training=settings))
    return {"estimated": guess.memory / 2**20, "measured": taken * 1024}


def main(name: str) -> None:
    """Print every case: estimated, measured, their ratio."""
    for case in CASES:
        given = json.dumps(case)
        command = [sys.executable, "-m", "perf.estimates", name, given]
        calm = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "UNSEE_CACHE": "off"}
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **calm}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{given} failed:\n{done.stderr[-2000:]}")
        found = json.loads(done.stdout.splitlines()[-1])
        ratio = found["estimated"] / found["measured"]
        print(f"{given:<100} {found['estimated']:7.0f} {found['measured']:7.0f} MiB {ratio:6.2f}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        print(json.dumps(measured(sys.argv[1], json.loads(sys.argv[2]))))
    else:
        main(*sys.argv[1:])
