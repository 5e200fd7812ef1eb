"""Validation of a run of `forget`, before anything is opened or written."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from unsee import config
from unsee.api import Benchmark, Method, Training, registry
from unsee.api.idle import idle_for_method, idle_in_run, without_effect
from unsee.config import RECORD, Run, paths
from unsee.config.hints import setting_hints
from unsee.config.plugins import with_plugins, with_used
from unsee.data.check import require_usable
from unsee.data.open import OBJECT, benchmark_arguments, location, open_benchmark
from unsee.data.survey import Survey
from unsee.distributed import processes
from unsee.distributed.file_lock import require_free
from unsee.errors import UserError
from unsee.models import builtin
from unsee.models.location import folder_of
from unsee.utils import trackers
from unsee.utils.files import foreign
from unsee.utils.terminal import note_once


@dataclass(frozen=True, kw_only=True)
class Checked:
    """Validated run, before anything is opened or written."""

    run: Run
    """Every setting spelled out, paths absolute."""
    method: Method
    benchmark: Benchmark
    training: Training
    survey: Survey
    """Result of the one pass over the data."""


def validate_run(
    run: Run, *, resume: bool = False, data: Benchmark | None = None, hashed: bool = False, shared: bool = False
) -> Checked:
    """Return the validated run.

    Args:
        run: What to check: names, places, settings, method and data.
        resume: Expect an existing run folder instead of refusing one.
        data: What `run.data` stands for if it was given as an object. Default: opened from `run.data`.
        hashed: Fingerprint the data in the same pass.
        shared: Tell of settings without effect instead of refusing them.

    Raises:
        UserError: The first fault.
    """
    run = with_plugins(run)
    with setting_hints(run):
        checked_run = _validate_run(run, data, resume=resume, hashed=hashed)
    if not (resume and (Path(run.out) / RECORD).exists()):
        _require_effect(checked_run, shared=shared)
    return checked_run


def _require_effect(checked_run: Checked, *, shared: bool) -> None:
    """Raise for a setting that can have no effect.

    Those of runs with `shared` settings are told instead, and so are those of the training that the method does not read.
    """
    method, benchmark, training = checked_run.method, checked_run.benchmark, checked_run.training
    neutral = {"training": config.build(Training, benchmark.suggested(checked_run.run.method), where="training")}
    parts = {"method": method, "training": training, "benchmark": benchmark.settings}
    messages = list(without_effect(parts, [*idle_in_run(method, training), *benchmark.idle()], neutral=neutral))
    if messages and not shared:
        raise UserError(messages[0])
    for message in [*messages, *without_effect(parts, idle_for_method(method, training), neutral=neutral)]:
        note_once(message)


def _validate_run(run: Run, data: Benchmark | None, *, resume: bool, hashed: bool) -> Checked:
    require_names(run)
    require_locations(run)  # before the method, whose import takes seconds
    method = config.method_of(run)
    config.build(Training, run.training, where="training")
    config.build(config.EvalConfig, run.eval, where="eval")  # the verdict needs it, after the training
    require_place(Path(run.out), resume=resume)
    benchmark = data or open_benchmark(run.data, run.benchmark)
    survey = require_usable(benchmark, run.data, hashed=hashed)
    training = config.build(Training, {**benchmark.suggested(run.method), **run.training}, where="training")
    _require_quantizable(run.method, method, training)
    _require_tunable(run.method, method, training)
    trackers.require(training.report_to)
    registered = data is None or benchmark.name in registry.names("benchmarks")
    run = replace(
        run,
        model=builtin.absolute_or_name(run.model),
        data=builtin.absolute_or_name(run.data),
        benchmark=benchmark_arguments(benchmark) if registered else benchmark.name,
        settings=config.plain(asdict(method)),
        training=config.plain(asdict(training)),
    )
    run = with_used(run, ("methods", run.method))
    run = with_used(run, ("benchmarks", benchmark.name)) if registered else run
    return Checked(run=run, method=method, benchmark=benchmark, training=training, survey=survey)


def _require_quantizable(name: str, method: Method, training: Training) -> None:
    """Raise if the base cannot be quantised for this method, on this machine."""
    kind = training.quantization
    if kind == "none":
        return
    if why := method.needs().full_weights:
        raise UserError(
            f"{name} {why}, which training.quantization={kind} does not keep in full. Leave quantization out, or take another method."
        )
    if processes.sharding() != "none":
        raise UserError(
            f"training.quantization={kind} needs whole weights in every process. Use configs/ddp.yaml, or one process."
        )
    from unsee.models.quantized_base import require

    require(kind)


def _require_tunable(name: str, method: Method, training: Training) -> None:
    """Raise if the method does not support this `training.tune`."""
    if training.tune not in (tunes := method.tunes()):
        raise UserError(
            f"{name}, as it is set, takes training.tune={' or '.join(tunes)}, got {training.tune}. Set --tune {tunes[0]}."
        )


def require_names(run: Run) -> None:
    """Raise if the run lacks model, data, method or output folder."""
    for name, value in (("model", run.model), ("data", run.data), ("method", run.method), ("out", run.out)):
        if not value:
            label = "output folder" if name == "out" else name
            raise UserError(f"The run names no {label}. Give --{name} or `{name}:` in the run file.")


def require_locations(run: Run) -> None:
    """Raise if there is no method, model or data of that name. Imports no torch."""
    if run.method:
        registry.require("methods", run.method)
    folder_of(run.model)
    if run.data != OBJECT and run.data.partition(":")[0] != "lab":
        location(run.data)


def require_place(out: Path, *, resume: bool) -> None:
    """Raise if `out` is not empty, or in use by another process."""
    paths.require_writable(out)
    if processes.world() == 1:  # of several processes, another one may own the folder already
        require_free(out)
    if not foreign(out):
        return
    has_record = (out / RECORD).exists()
    if not resume:
        advice = "Give --resume to go on with the run in it, or another --out." if has_record else "Give another --out."
        raise UserError(f"The output folder {out} is not empty. {advice}")
    if not has_record:
        raise UserError(f"Nothing to resume: {out} holds files, but no {RECORD} of an earlier run.")
