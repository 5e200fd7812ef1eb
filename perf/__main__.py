"""`python -m perf`: ratios of unsee to the conventional way and to the bare passes, measured side by side in one run."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from perf import evaluation, memory, report, saliency, steps
from perf.subject import Subject, subject
from unsee import config

OTHERS: Final = ("mmunlearner_mask", "mmunlearner_mask_stop", "mmunlearner_run", "evaluation", "trainer", "scaling")
ALL: Final = (*steps.CASES, *OTHERS)
LONG: Final = (
    *("ga_lora", "reject_lora", "graddiff_lora", "ga_full", "kl_full"),
    *("ga_frozen", "kl_frozen", "npo_small", "kl_small", "full_small"),
)
"""Step cases that `--quick` leaves out."""
QUICK: Final = (*(name for name in steps.CASES if name not in LONG), *OTHERS)


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How much is measured."""

    model: str
    batch_size: int
    repetitions: int
    """Paired repetitions of a step."""
    mask_repetitions: int
    mask_batches: int
    """Forget batches of the mask; there are twice as many retain and text batches."""
    run_batches: int
    """Retain batches for each forget batch in the whole run, as in a 5 % (19) or 10 % (9) split."""
    images: int
    """Images that are asked about in the evaluation."""
    evaluations: int
    threads: int
    quick: bool
    kept: bool
    """Whether memory is measured a second time as glibc keeps freed blocks."""

    def subject(self, name: str = "") -> Subject:
        """Return the model and its data."""
        return subject(name or self.model, batch_size=0 if name else self.batch_size)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is asked for and print it; return 1 if a case failed."""
    asked = _parser().parse_args(arguments)
    if asked.table:
        print(report.markdown(json.loads(asked.table.read_text(encoding="utf-8"))))
        return 0
    found = measure(_extent(asked), _chosen(asked), lab=asked.model == "both")
    if asked.out:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1) if asked.json else report.markdown(found))
    failed = [name for part in (found, found.get("lab", {})) for name, entry in part.items() if "error" in entry]
    return int(bool(failed))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m perf", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="smaller model and fewer examples; ten minutes on two cores"
    )
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.add_argument("--only", default="", help=f"cases, separated by commas: {', '.join(ALL)}")
    parser.add_argument("--model", default="", choices=["mid", "quick", "lab", "tiny", "both"], help="default: both")
    parser.add_argument("--batch", type=int, default=0, help="examples per batch")
    parser.add_argument("--reps", type=int, default=0, help="paired repetitions of a step")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="default: all cores")
    parser.add_argument(
        "--dtype", default="fp32", choices=["fp32", "bf16"], help="precision of the models on every side"
    )
    parser.add_argument("--kept", action="store_true", help="measure memory also as glibc keeps freed blocks (CPU)")
    parser.add_argument("--out", type=Path, help="write the JSON to this file too")
    parser.add_argument("--table", type=Path, help="measure nothing; print such a file as a markdown table")
    return parser


def _extent(asked: argparse.Namespace) -> Extent:
    """Return how much to measure."""
    if not asked.model:
        asked.model = "both"
    quick = asked.quick
    model = asked.model if asked.model != "both" else ("quick" if quick else "mid")
    return Extent(
        model="quick" if quick and model == "mid" else model,
        batch_size=asked.batch or (16 if model == "lab" else 1 if quick else 4),
        repetitions=asked.reps or 5 + 4 * (not quick),
        mask_repetitions=min(asked.reps or 5, 1 if quick else 5),
        mask_batches=1 if quick else 2,
        run_batches=9 if quick else 19,
        images=5 if quick else 8,
        evaluations=min(asked.reps or 5, 1 if quick else 5),
        threads=asked.threads,
        quick=quick,
        kept=asked.kept,
    )


def _chosen(asked: argparse.Namespace) -> list[str]:
    """Return the cases; an unknown name ends the program with the list."""
    if not asked.only:
        return list(QUICK if asked.quick else ALL)
    chosen = asked.only.split(",")
    unknown = [name for name in chosen if name not in ALL]
    if unknown:
        raise SystemExit(f"No case is called {', '.join(unknown)}. There are: {', '.join(ALL)}.")
    return chosen


def measure(extent: Extent, chosen: Sequence[str], *, lab: bool = False) -> dict[str, Any]:
    """Measure the cases one after the other; a case that fails says so in its entry."""
    torch.set_num_threads(extent.threads)
    found: dict[str, Any] = {name: _guarded(name, partial(one, name, extent)) for name in chosen}
    if lab:
        small = [name for name in ("npo_lora", "kl_lora", "npo_frozen", "evaluation") if name in chosen]
        found["lab"] = {name: _guarded(f"lab {name}", partial(one_on_lab, name, extent)) for name in small}
    return {**found, "machine": machine(extent), "settings": vars(extent)}


def one(name: str, extent: Extent) -> dict[str, Any]:
    """Measure one case: speed in this process, memory in others."""
    opened = extent.subject()
    here = memory.Place(extent.model, extent.batch_size, extent.threads)
    if name in steps.CASES:
        return {**steps.measure(name, opened, extent.repetitions), **memory.compare(name, here, kept=extent.kept)}
    if name == "trainer":
        return steps.measure_trainer(opened, extent.repetitions)
    if name == "scaling":
        return memory.scaling(here, batches=1 if extent.quick else 2)
    if name == "evaluation":
        entry = evaluation.measure(opened, extent.images, extent.evaluations)
        return {**entry, **memory.compare(name, here, 2, kept=extent.kept)}
    batches = extent.mask_batches if name == "mmunlearner_mask" else extent.run_batches
    entry = saliency.measure(name, opened, batches, extent.mask_repetitions)
    if name != "mmunlearner_mask" and extent.quick:
        return entry  # the stop needs what the mask needs, the run what full tuning needs
    return {**entry, **memory.compare(name, here, batches, kept=extent.kept)}


def one_on_lab(name: str, extent: Extent) -> dict[str, Any]:
    """Measure one case on the packaged model, whose memory is not worth a process."""
    opened = extent.subject("lab")
    if name == "evaluation":
        return evaluation.measure(opened, 4 * extent.images, extent.evaluations)
    return steps.measure(name, opened, extent.repetitions)


def _guarded(name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what was measured, or what went wrong: one broken case must not cost the others."""
    start = time.perf_counter()
    sys.stderr.write(f"{name} ... ")
    sys.stderr.flush()
    try:
        entry = work()
    except Exception as error:  # noqa: BLE001 - reported in the table, and by the exit code
        traceback.print_exc()
        entry = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
    sys.stderr.write(f"{time.perf_counter() - start:.0f} s\n")
    return entry


def machine(extent: Extent) -> dict[str, Any]:
    """Return the circumstances of a measurement."""
    cuda = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if cuda else _processor_name(),
        "threads": extent.threads,
        "python": platform.python_version(),
        **config.versions(),
        "commit": config.commit(),
    }


def _processor_name() -> str:
    """Return the processor's name, as Linux has it."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]} CPU" if names else platform.processor() or "CPU"


if __name__ == "__main__":
    raise SystemExit(main())
