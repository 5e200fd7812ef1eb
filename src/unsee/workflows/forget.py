"""Workflow of `forget`: from model and deletion request to an unlearned checkpoint."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from unsee import config
from unsee.api import Benchmark, Method, Role, Session, Training, registry
from unsee.api.fast_paths import PLAIN, Name
from unsee.config import RECORD, Run
from unsee.config.plugins import with_plugins, with_specs
from unsee.config.retention import KEEP, due_date
from unsee.data.open import OBJECT, of_object
from unsee.distributed import processes as distributed_processes
from unsee.distributed.file_lock import owner
from unsee.errors import UserError
from unsee.models import builtin, model_card
from unsee.models.identity import bases, model_hash
from unsee.models.location import folder_of
from unsee.utils.files import remove_folder, require_space
from unsee.utils.parsing import read_object
from unsee.utils.terminal import note_once
from unsee.workflows.given import SLACK, opened_of, stored_base
from unsee.workflows.run import Run as FinishedRun
from unsee.workflows.validate import Checked, require_place, validate_run

if TYPE_CHECKING:
    from torch.nn import Module
    from transformers import TrainerCallback


_APART: Final = ("out", "plugins", "retention")
"""Fields of a run that need not be equal word by word when it is resumed."""
_CHECKPOINTS: Final = 3
"""Most resumable checkpoints on disk at once: two kept, one being written."""


def forget(
    model: Any,
    data: Any,
    method: str | Method,
    out: Path | str = "",
    *,
    processor: Any = None,
    benchmark: str | Mapping[str, Any] = "",
    settings: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    seed: int = 0,
    engine: Name | None = None,
    plugins: Sequence[Path | str] = (),
    resume: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
) -> FinishedRun:
    """Unlearn the forget role of `data` from `model` and return the finished run.

    The run is a path with `.evaluate()` and more.

    Args:
        model: Folder, hub id, earlier run folder, or "lab" / "lab-gold"; or an opened model: what `unsee.load` returns,
            `(model, processor)`, or a model of transformers with `processor`. An opened model stays as it is: its weights
            are kept in `OUT-base`, which the run starts from.
        data: Folder or table with the deletion request, or "lab"; or rows as a list of mappings, DataFrame or
            `datasets.Dataset` with the columns of docs/own_data.md; or an opened benchmark. The rows are not written to
            disk; run.yaml has their hash.
        method: A name that `unsee list methods` prints, a file or `pkg.mod:Class` that defines one, or an instance.
        out: Folder that receives run.yaml, model/ and log.jsonl; must be empty unless `resume`. "" = `runs/METHOD`, or the
            first free of `runs/METHOD-2`, ...
        processor: Processor of a model that is given as an object.
        benchmark: How the data is laid out: a name, or a mapping with `name` and settings; empty = recognise it.
        settings: Settings of the method that differ from its defaults.
        training: Fields of `Training` that differ from what suits the data and the defaults.
        seed: Start of every random stream.
        engine: "plain" switches every fast path off; the numbers stay the same. None = "plain" for a model that was opened
            so, else "fast".
        plugins: Files, folders or modules with methods, benchmarks or families of your own (docs/extending.md).
        resume: Go on with an interrupted run in `out`; gives the weights of an uninterrupted one. Objects must have the
            same weights and rows as those that the run began with.
        callbacks: transformers' `TrainerCallback`s. Their `on_*` events are fired by the training; `should_training_stop`,
            `should_save` and `should_log` are obeyed.

    Raises:
        UserError: Anything is wrong with names, settings, folders, data, model or disk; no weight has changed then.
    """
    vlm = None if isinstance(model, str | os.PathLike) and processor is None else opened_of(model, processor)
    given_data = None if isinstance(data, str | os.PathLike) else of_object(data, benchmark)
    run = Run.of(
        "" if vlm is not None else os.fspath(model),
        os.fspath(data) if given_data is None else OBJECT,
        method,
        out,
        benchmark=benchmark,
        settings=settings,
        training=training,
        seed=seed,
        engine=engine or ("plain" if vlm is not None and vlm.engine == PLAIN else "fast"),
        plugins=plugins,
    )
    if not run.out:
        run = with_plugins(run)  # a file or module that stands for a method has no name before
        run = replace(run, out=str(_free(run.method, resume=resume)))
    if vlm is not None:
        require_place(Path(run.out), resume=resume)
    with nullcontext(run.model) if vlm is None else stored_base(vlm, Path(run.out)) as base:
        run = replace(run, model=str(base))
        finished_run = FinishedRun(forget_run(run, resume=resume, callbacks=callbacks, data=given_data))
    finished_run.data = given_data
    return finished_run


def _free(method: str, *, resume: bool) -> Path:
    """Return the first free folder `runs/METHOD`, `runs/METHOD-2`, ..."""
    if resume:
        raise UserError("Which run is to be resumed? Give `out`, its folder.")
    names = chain([method], (f"{method}-{number}" for number in count(2)))
    return next(folder for name in names if not (folder := Path("runs") / name).exists())


def forget_run(
    run: Run,
    *,
    resume: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
    data: Benchmark | None = None,
    shared: bool = False,
) -> Path:
    """Run `forget` from a run configuration.

    Args:
        run: What to do.
        resume: Go on in an existing run folder; without, one is refused.
        callbacks: Called while training, beside those of unsee.
        data: What `run.data` stands for if it was given as an object. Default: opened from `run.data`.
        shared: Whether other runs have the same settings, as the cells of a grid: those without effect are told, not refused.

    Returns:
        Run folder, with model and record.
    """
    if callbacks:
        from unsee.compat.callbacks import instantiate

        callbacks = instantiate(callbacks)
    distributed_processes.start()
    with distributed_processes.lost_peer_explained():
        return _forget(run, callbacks, data, resume=resume, shared=shared)


def _forget(
    run: Run, callbacks: Sequence[TrainerCallback], data: Benchmark | None, *, resume: bool, shared: bool
) -> Path:
    checked_run = validate_run(run, resume=resume, data=data, hashed=True, shared=shared)
    run, out = checked_run.run, Path(run.out)
    record = _record(run, checked_run.survey.fingerprint)
    done = resume and _already_done(out, checked_run, record)
    if not done:
        _require_same_base(checked_run.training, record["model_hash"])
    session = None if done else _open(checked_run, resume=resume)
    if session is not None:
        session.callbacks = callbacks
        run = with_specs(run, registry.pin_of_family(type(session.family)))
        _require_same_plugins(out, run)
    distributed_processes.barrier()  # from here on there are files
    with owner(out, check=partial(require_place, out, resume=resume)):  # again: now nobody else writes here
        if session is not None:
            _unlearn(session, run, checked_run.method, record)
        if distributed_processes.is_main():
            # a resumed run repeats both, for an interruption may have come between its result and these
            model_card.write(out)
            remove_folder(out / "checkpoints")
    distributed_processes.barrier()
    return out


def _unlearn(session: Session, run: Run, method: Method, record: Mapping[str, Any]) -> None:
    """Run the method and save its result, the record last, which marks the run as finished."""
    from unsee.training.trainable import require_finite

    record_file = session.out / RECORD
    resumed = session.resume and record_file.exists()
    if distributed_processes.is_main():
        config.write(record_file, run, record=record)
    start, cpu_start = time.perf_counter(), time.process_time()
    session.notes["promise"] = method.promise
    with registry.faults("methods", run.method):
        method.unlearn(session)
    require_finite(session.model)
    timings = {
        "seconds": round(time.perf_counter() - start, 3),
        "cpu_seconds": round(time.process_time() - cpu_start, 3),
    }
    timings = {} if resumed else timings  # earlier calls did part of the work
    result = {**timings, "steps": 0, "trainable": 0, **session.notes}
    if due := due_date(run.retention, datetime.now(UTC).date()):
        result["retention"] = {"due": due.isoformat()}
    if distributed_processes.is_main():
        _save(session, run, record)
        config.write(record_file, run, record=record, result=result)


def _record(run: Run, data_hash: str) -> dict[str, Any]:
    """Return the environment that a result depends on."""
    base_hashes = [base.hash for base in bases(run.model)]
    return {
        "processes": distributed_processes.world(),
        "versions": config.versions(),
        "commit": config.commit(),
        "model_hash": model_hash(run.model) if Path(builtin.resolve(run.model)).is_dir() else "",
        **({"bases": base_hashes} if base_hashes else {}),
        "data_hash": data_hash,
    }


def _already_done(out: Path, checked_run: Checked, record: Mapping[str, Any]) -> bool:
    """Tell whether the run in `out` has finished, or raise if it is a different one."""
    path = out / RECORD
    if not path.exists():
        return False
    stored_run = config.read_mapping(path)
    earlier_record = stored_run.get("record")
    if not isinstance(earlier_record, Mapping) or not {"model_hash", "data_hash"} <= earlier_record.keys():
        raise UserError(f"{path} is damaged: its part `record` is missing or incomplete. Start anew in another --out.")
    _require_same_plugins(out, checked_run.run)
    run, ended = checked_run.run, "result" in stored_run
    earlier = _spelled_out(config.read(path), checked_run, path)
    earlier = _for_world_size(earlier, int(earlier_record.get("processes", 1)), ended=ended)
    earlier_values = asdict(earlier)
    changed = [name for name, value in asdict(run).items() if name not in _APART and earlier_values[name] != value]
    for name in ("model_hash", "data_hash", "bases"):
        changed += [name] if earlier_record.get(name, record.get(name)) != record.get(name) else []
    if changed:
        raise UserError(
            f"Cannot resume {out}: {', '.join(changed)} differ from what {path} says. "
            f"Resume with `unsee forget {path} --resume`, or start anew in another --out."
        )
    if ended and run.retention not in (earlier.retention, KEEP):
        note_once(
            f"retention stays {earlier.retention} in {path}, as the run has ended; `unsee purge {out}` removes what it keeps."
        )
    if ended:
        folder_of(out)  # raises if its weights were purged
    return ended


def _spelled_out(earlier: Run, checked_run: Checked, path: Path) -> Run:
    """Return an earlier run with the defaults of settings that its version did not have."""
    training = config.build(Training, earlier.training, where=f"training in {path}")
    earlier = replace(earlier, training=config.settings_of(training))
    if earlier.method == checked_run.run.method:
        method = config.build(type(checked_run.method), earlier.settings, where=f"method {earlier.method} in {path}")
        earlier = replace(earlier, settings=config.settings_of(method))
    name, given_settings = config.name_and_settings(earlier.benchmark)
    if isinstance(checked_run.run.benchmark, Mapping) and name == checked_run.run.benchmark["name"]:
        settings = config.build(
            type(checked_run.benchmark.settings), given_settings, where=f"benchmark {name} in {path}"
        )
        earlier = replace(earlier, benchmark={"name": name, **config.settings_of(settings)})
    return earlier


def _require_same_base(training: Training, model_hash: str) -> None:
    """Raise if the adapter to continue from was trained on another model, or on its weights in another number of bits.

    An adapter that does not name its base is accepted.
    """
    adapter = training.adapter
    if not adapter:
        return
    sidecars = (Path(adapter) / "unsee.json", Path(adapter) / "model" / "unsee.json")
    file = next((sidecar for sidecar in sidecars if sidecar.is_file()), None)
    if file is None:
        return
    sidecar = read_object(file)
    base_hash, quantization = sidecar.get("base_hash"), sidecar.get("quantization", "none")
    if base_hash and model_hash and base_hash != model_hash:
        raise UserError(
            f"training.adapter: {adapter} was trained on another model than this run's (base_hash in {file}). "
            "Give the model that it was trained on, or another adapter."
        )
    if quantization != training.quantization:
        raise UserError(
            f"training.adapter: {adapter} was trained with training.quantization={quantization} ({file}), and this run has "
            f"{training.quantization}. Set it as it was, or give another adapter."
        )


def _require_same_plugins(out: Path, run: Run) -> None:
    """Raise if the run in `out` was begun with other plugins, or with other code in them."""
    path = out / RECORD
    if path.exists() and (new_plugins := set(run.plugins) - set(config.read(path).plugins)):
        raise UserError(
            f"Cannot resume {out}: {path} does not list the plugin {min(new_plugins)} with this hash. "
            f"Restore the plugin and resume with `unsee forget {path} --resume`, or start anew in another --out."
        )


def _for_world_size(run: Run, processes: int, *, ended: bool) -> Run:
    """Return the run for the current world size, since `batch_size` is per rank.

    Raises:
        UserError: The processes cannot share the batches of a run that has not `ended`.
    """
    global_batch, world_size = int(run.training["batch_size"]) * processes, distributed_processes.world()
    batch_size, remainder = divmod(global_batch, world_size)
    if not remainder:
        return replace(run, training={**run.training, "batch_size": batch_size})
    if ended:
        return run
    raise UserError(
        f"Cannot resume: the run began with a global batch of {global_batch} (batch_size x processes), which {world_size} processes cannot share. "
        "Resume with a number of processes that divides it."
    )


def _open(checked_run: Checked, *, resume: bool) -> Session:
    """Return the session, or raise if the model is unusable or the disk too small."""
    import torch

    from unsee.models.checkpoint import load
    from unsee.training.trainer import prepare

    run, training = checked_run.run, checked_run.training
    loaded = load(run.model, quantization=training.quantization, engine=run.engine)
    torch.manual_seed(run.seed)
    model = prepare(loaded.model.to(distributed_processes.device()), loaded.family, training, run.seed)
    require_space(Path(run.out), bytes_needed(model, training), f"the run in {run.out}")
    session = Session(
        vlm=replace(loaded, model=model),
        examples=checked_run.survey.by_role(),
        training=training,
        seed=run.seed,
        out=Path(run.out),
        resume=resume,
        benchmark=checked_run.benchmark,
    )
    require_encodable(session)
    return session


def require_encodable(session: Session) -> None:
    """Raise before training if a row cannot be encoded."""
    from unsee.inference.preflight import Preflight

    rows = (example for examples in session.examples.values() for example in examples)
    Preflight(session.vlm).require(rows, progress=distributed_processes.is_main())


def bytes_needed(model: Module, training: Training) -> int:
    """Estimate the disk space: result, checkpoints, and the last good weights of the guard."""
    from unsee.training.resume import checkpoint_bytes
    from unsee.training.trainable import trainable_bytes

    last_good_bytes = trainable_bytes(model) if training.guard == "collapse" else 0
    return _result_bytes(model, training) + _CHECKPOINTS * checkpoint_bytes(model, training) + last_good_bytes


def _result_bytes(model: Module, training: Training) -> int:
    """Return the bytes of the saved model in fp32, with a margin for the other files."""
    sizes = (weight.numel() for weight in model.parameters() if weight.requires_grad or training.tune == "full")
    return 4 * sum(sizes) + SLACK


def _save(session: Session, run: Run, record: Mapping[str, Any]) -> None:
    """Write model/: weights, processor and sidecar."""
    from unsee.models.checkpoint import save_model
    from unsee.training.resume import full_disk_explained

    facts = {
        "base_hash": record["model_hash"],
        "ancestor": session.vlm.base,
        "method": run.method,
        "settings": model_card.public(run.settings),
        "seed": run.seed,
        "data_hash": record["data_hash"],
        "forgotten": len({example.entity for example in session.of(Role.FORGET, Role.FORGET_TEXT)}),
    }
    folder = session.out / "model"
    with full_disk_explained(folder, "the model", _result_bytes(session.model, session.training)):
        save_model(
            session.model,
            session.processor,
            folder,
            instruction=session.instruction,
            base=run.model,
            facts=facts,
        )
