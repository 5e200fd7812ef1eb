"""Workflow of `estimate`: memory, disk, steps and time of a run, and whether it can start.

It reads configs, processor and data, loads no weights (except for a probe of the time) and writes nothing.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Unpack

from unsee.api import Method
from unsee.config import Run, RunOptions
from unsee.errors import UserError
from unsee.workflows.validate import validate_run

if TYPE_CHECKING:
    from unsee.workflows.estimator import Estimate

Device = Literal["auto", "cpu", "cuda"]


def estimate(
    model: Path | str,
    data: Path | str,
    method: str | Method,
    out: Path | str,
    *,
    device: Device = "auto",
    probe: bool = False,
    **options: Unpack[RunOptions],
) -> Estimate:
    """Return the estimate for `forget` with these arguments, after the same checks.

    Reads configs and data, writes nothing.

    Args:
        model: Model to unlearn, as for `forget`.
        data: Data with what to forget, as for `forget`.
        method: Method, by name or as an object.
        out: Run folder. Nothing is written to it, but one that `forget` would refuse is refused.
        device: What the run is for, cpu or cuda (any GPU, which need not be here); auto = what this machine has. One process.
        probe: Also take a few steps on part of the data, for the time; loads the weights.
        **options: `benchmark`, `settings`, `training`, `seed`, `engine` and `plugins`, as of `forget`.

    Raises:
        UserError: `forget` would refuse the names, settings, places or data.
    """
    run = Run.of(model, data, method, out, **options)
    return estimate_run(run, device=device, probe=probe)


def estimate_run(run: Run, *, resume: bool = False, device: Device = "auto", probe: bool = False) -> Estimate:
    """Return the estimate for a run.

    Args:
        run: Run to estimate; plugins and settings are checked first.
        resume: Estimate a call that goes on in an existing run folder.
        device: What the run is for: cpu, cuda or auto (what this machine has).
        probe: Also take a few steps on part of the data, for the time; loads the weights.

    Raises:
        UserError: The device is unknown, or `forget` would refuse the run.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"device must be auto, cpu or cuda, got {device!r}.")
    checked_run = validate_run(run, resume=resume)
    from unsee.workflows.estimator import Estimator
    from unsee.workflows.probe import time_parts

    examples = checked_run.survey.by_role()
    estimator = Estimator(checked_run.run, checked_run.training, examples, checked_run.method.needs(), device)
    run_estimate = estimator.estimate()
    if not probe or run_estimate.problems or not estimator.here:
        return run_estimate
    timing = time_parts(checked_run.run, checked_run.training, examples, checked_run.method)
    return replace(run_estimate, seconds=timing.total(run_estimate.steps, estimator.checks))
