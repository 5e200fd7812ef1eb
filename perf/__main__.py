"""`python -m perf`: unsee against the conventional way and the bare passes, in one run."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch

from perf import budget, evaluation, memory, report, saliency, steps
from perf.record import Record, open_record
from perf.subject import PACKAGED, Precision, Subject, subject
from unsee import config
from unsee.errors import UserError
from unsee.models.builtin import checkpoint

OTHERS: Final = ("mmunlearner_mask", "mmunlearner_mask_stop", "mmunlearner_run", "evaluation", "trainer", "scaling")
ALL: Final = (*steps.CASES, *OTHERS)
LONG: Final = (
    *("ga_lora", "reject_lora", "graddiff_lora", "ga_full", "kl_full"),
    *("ga_frozen", "kl_frozen", "npo_small", "kl_small", "full_small"),
)
"""Step cases that `--quick` leaves out."""
QUICK: Final = (*(name for name in steps.CASES if name not in LONG), *OTHERS)


LAB: Final = "lab: "
"""Prefix of the cases on the packaged model."""
ON_LAB: Final = ("npo_lora", "kl_lora", "npo_frozen", "evaluation")
SHARED_QUICK: Final = 2
"""Repetitions of the cases with shared images under `--quick`; their steps are four times as long."""


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
    precision: Precision

    def subject(self, name: str = "") -> Subject:
        """Return the model and its data."""
        return subject(name or self.model, batch_size=0 if name else self.batch_size, precision=self.precision)

    def most(self, name: str) -> int:
        """Return the repetitions of a case without a budget."""
        kind = name.removeprefix(LAB)
        if kind == "scaling":
            return 0
        if kind.startswith("mmunlearner"):
            return self.mask_repetitions
        if kind == "evaluation":
            return self.evaluations
        return min(self.repetitions, SHARED_QUICK) if self.quick and kind.endswith("_shared") else self.repetitions

    def limited(self, name: str, repetitions: int) -> Extent:
        """Return the extent with at most so many repetitions of the case."""
        count = min(repetitions, self.most(name))
        return replace(self, repetitions=count, mask_repetitions=count, evaluations=count)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is asked for and print it; return 1 if a case failed."""
    asked = parser().parse_args(arguments)
    if asked.table:
        print(report.markdown(json.loads(asked.table.read_text(encoding="utf-8"))))
        return 0
    extent, names = extent_of(asked), _chosen(asked)
    place = asked.out or Path("runs", "perf", f"{extent.model}{'-quick' * extent.quick}.json")
    try:
        if extent.model in PACKAGED:
            checkpoint(PACKAGED[extent.model].model)  # before anything is measured
        record = open_record(place, {"machine": machine(extent), "settings": asdict(extent)}, fresh=asked.fresh)
        left_out = measure(extent, names, record, seconds=asked.budget * 60 if asked.budget else None)
    except UserError as error:
        raise SystemExit(str(error)) from None
    except KeyboardInterrupt:
        sys.stderr.write(f"\nInterrupted. Finished cases are in {place}; the same command continues with the others.\n")
        return 130
    print(json.dumps(record.content(), indent=1) if asked.json else report.markdown(record.content()))
    if left_out:
        sys.stderr.write(
            f"Left out, because {asked.budget:g} minutes do not suffice: {', '.join(left_out)}. "
            "The same command measures them next.\n"
        )
    return int(any("error" in record.entries.get(name, {}) for name in names))


def parser() -> argparse.ArgumentParser:
    """Return the options of the command."""
    options = argparse.ArgumentParser(prog="python -m perf", description=__doc__)
    options.add_argument(
        "--quick", action="store_true", help="smaller model and fewer examples; a quarter of an hour on two cores"
    )
    options.add_argument(
        "--budget", type=float, default=0, metavar="MINUTES", help="choose repetitions, and if need be cases, to fit"
    )
    options.add_argument("--fresh", action="store_true", help="measure every case anew, also those in the results file")
    options.add_argument("--json", action="store_true", help="print JSON only")
    options.add_argument("--only", default="", help=f"cases, separated by commas: {', '.join(ALL)}")
    options.add_argument(
        "--model", default="", choices=["mid", "quick", *PACKAGED, "tiny", "both"], help="default: both"
    )
    options.add_argument("--batch", type=int, default=0, help="examples per batch")
    options.add_argument("--reps", type=int, default=0, help="paired repetitions of a step")
    options.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="default: all cores")
    options.add_argument(
        "--dtype", default="fp32", choices=["fp32", "bf16"], help="precision of the models on every side"
    )
    options.add_argument("--kept", action="store_true", help="measure memory also as glibc keeps freed blocks (CPU)")
    options.add_argument("--out", type=Path, help="results file, written after every case; default: in runs/perf")
    options.add_argument("--table", type=Path, help="measure nothing; print such a file as a markdown table")
    return options


def extent_of(asked: argparse.Namespace) -> Extent:
    """Return how much to measure."""
    if not asked.model:
        asked.model = "both"
    quick = asked.quick
    model = asked.model if asked.model != "both" else ("quick" if quick else "mid")
    return Extent(
        model="quick" if quick and model == "mid" else model,
        batch_size=asked.batch or (PACKAGED[model].batch_size if model in PACKAGED else 1 if quick else 4),
        repetitions=asked.reps or 5 + 4 * (not quick),
        mask_repetitions=min(asked.reps or 5, 1 if quick else 5),
        mask_batches=1 if quick else 2,
        run_batches=9 if quick else 19,
        images=5 if quick else 8,
        evaluations=min(asked.reps or 5, 1 if quick else 5),
        threads=asked.threads,
        quick=quick,
        kept=asked.kept,
        precision=asked.dtype,
    )


def _chosen(asked: argparse.Namespace) -> list[str]:
    """Return the cases; an unknown name ends the program with the list."""
    chosen = asked.only.split(",") if asked.only else list(QUICK if asked.quick else ALL)
    unknown = [name for name in chosen if name not in ALL]
    if unknown:
        raise SystemExit(f"No case is called {', '.join(unknown)}. There are: {', '.join(ALL)}.")
    return [*chosen, *(f"{LAB}{name}" for name in ON_LAB if asked.model == "both" and name in chosen)]


def measure(extent: Extent, names: Sequence[str], record: Record, *, seconds: float | None = None) -> Sequence[str]:
    """Measure the cases that the record lacks, one after the other, within `seconds`; return what was left out.

    A case that fails says so in its entry, and is measured again by the next command.
    """
    torch.set_num_threads(extent.threads)
    end = None if seconds is None else time.perf_counter() + seconds
    todo = [name for name in names if not record.finished(name)]

    def planned() -> budget.Plan:
        left = None if end is None else end - time.perf_counter()
        return budget.plan(todo, budget.pace(record.entries), {name: extent.most(name) for name in todo}, left)

    while (plan := planned()).cases:
        name = plan.cases[0]
        sys.stderr.write(f"[{len(names) - len(todo) + 1}/{len(names)}] {name} ... ")
        sys.stderr.flush()
        record.add(name, _guarded(name, extent.limited(name, plan.repetitions)))
        todo.remove(name)
        sys.stderr.write(f"{record.entries[name]['wall_seconds']:.0f} s. {_rest(planned())}\n")
    return todo


def _rest(plan: budget.Plan) -> str:
    """Return what is still to be measured and how long that takes."""
    if not plan.cases and not plan.left_out:
        return "All done."
    left = f"{len(plan.cases)} left, about {(plan.seconds or 0) / 60:.1f} min"
    return f"{left}; {len(plan.left_out)} do not fit." if plan.left_out else f"{left}."


def one(name: str, extent: Extent) -> dict[str, Any]:
    """Measure one case: speed in this process, memory in others."""
    if name.startswith(LAB):
        return one_on_lab(name.removeprefix(LAB), extent)
    opened = extent.subject()
    here = memory.Place(extent.model, extent.batch_size, extent.threads, extent.precision)
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


def _guarded(name: str, extent: Extent) -> dict[str, Any]:
    """Return what was measured, or what went wrong: one broken case must not cost the others."""
    start = time.perf_counter()
    try:
        entry = one(name, extent)
        json.dumps(entry, allow_nan=False)
    except Exception as error:  # noqa: BLE001 - reported in the table, and by the exit code
        traceback.print_exc()
        entry = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
    return {**entry, "wall_seconds": round(time.perf_counter() - start, 1)}


def machine(extent: Extent) -> dict[str, Any]:
    """Return the circumstances of a measurement."""
    cuda = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if cuda else processor_name(),
        "threads": extent.threads,
        "python": platform.python_version(),
        **config.versions(),
        "commit": config.commit(),
    }


def processor_name() -> str:
    """Return the processor's name, as Linux has it."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]} CPU" if names else platform.processor() or "CPU"


if __name__ == "__main__":
    raise SystemExit(main())
