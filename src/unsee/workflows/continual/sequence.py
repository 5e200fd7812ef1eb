"""Workflow of `continual`: a method over ordered requests, each model judged on all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final, Unpack

from unsee import config
from unsee.api import Method, Training, registry
from unsee.api.idle import idle_in_run, require_effect
from unsee.config import Run
from unsee.config.hints import setting_hints
from unsee.config.plugins import with_plugins, with_used
from unsee.config.retention import without_verdict
from unsee.data.check import require_usable
from unsee.data.open import open_benchmark
from unsee.distributed import processes
from unsee.distributed.file_lock import owner, require_free
from unsee.errors import UserError
from unsee.models.builtin import absolute_or_name
from unsee.utils.files import atomic_write_json, atomic_write_text, foreign
from unsee.utils.terminal import note, note_once
from unsee.workflows.continual.judging import GOLD, Judge
from unsee.workflows.continual.modes import MODES, Step
from unsee.workflows.continual.page import write_page
from unsee.workflows.continual.results import PROTOCOL, Judged, document, required_matrix
from unsee.workflows.continual.settings import Course
from unsee.workflows.continual.tasks import Tasks, tasks_of
from unsee.workflows.continual.work import Work
from unsee.workflows.validate import require_names

RECORD: Final = "continual.yaml"
RESULT: Final = "continual.json"
DATA_HASH: Final = "data_hash"
"""Key of continual.yaml that tells whether the data have changed between calls."""
_OPTIONAL: Final = ("plugins",)
"""Keys of continual.yaml that are not written where there is nothing to say."""
EVERY: Final = 20
"""Longest sequence that is evaluated after every request."""


def continual(
    model: Path | str,
    data: Path | str,
    method: str | Method,
    out: Path | str,
    *,
    course: Mapping[str, Any] | None = None,
    **options: Unpack[config.RunOptions],
) -> Path:
    """Unlearn requests in order, evaluate all after each, write `continual.json` and its page.

    Returns `out`.

    The same call resumes an interrupted one, between requests and within them.

    Args:
        model: The original model: folder, hub id, run folder, or "lab".
        data: Data whose entities are asked for, or "lab".
        method: A name that `unsee list methods` prints, a file or `pkg.mod:Class` that defines one, or an instance.
        out: Folder for everything; empty, or that of the same call.
        course: Fields of `Course`: `tasks` or `requests`, `mode`, `order`, ... (docs/continual.md).
        **options: `benchmark`, `settings`, `training`, `seed`, `engine` and `plugins`, as of `forget`, for each request.

    Raises:
        UserError: Names, settings, requests or data are wrong, or `out` holds something else; nothing has been trained then.
    """
    return continual_run(Run.of(model, data, method, out, **options), course or {})


def continual_run(run: Run, course: Mapping[str, Any]) -> Path:
    """Run `continual` from a run and a course."""
    processes.require_single("unsee continual")
    run = with_plugins(run)
    with setting_hints(run, {"continual": Course}):
        return _continual(run, config.build(Course, course, where="continual"))


def evaluation_points(count: int) -> list[int]:
    """Return the numbers of requests after which a model is evaluated.

    After each of up to 20, else 0, 1, 2, 5, every tenth, and the last.
    """
    return list(range(count + 1)) if count <= EVERY else sorted({0, 1, 2, 5, *range(10, count, 10), count})


def _continual(run: Run, course: Course) -> Path:
    require_names(run)
    registry.require("methods", run.method)
    _require_all_judged(run)
    data = open_benchmark(run.data, run.benchmark)
    run = with_used(run, ("methods", run.method), ("benchmarks", data.name))
    run, course = _explicit(run, course, dict(data.suggested(run.method)))
    tasks = tasks_of(data, course)
    out = Path(run.out)
    require_free(out)
    judge = _judge(run, course, tasks)
    if text := without_verdict(run.retention):
        note_once(text)
    with owner(out):
        _claim(out, run, course, tasks, judge.data)
        _walk(judge)
        write_page([out], out)
    return out


def _require_all_judged(run: Run) -> None:
    """Raise if `eval:` limits the evaluation, which the course sets for all models alike."""
    settings = config.build(config.EvalConfig, run.eval, where="eval")
    defaults = config.EvalConfig()
    narrowed_settings = [
        f"eval.{name}" for name in ("limit", "roles", "split") if getattr(settings, name) != getattr(defaults, name)
    ]
    narrowed_settings += ["eval.gold"] if settings.gold else []
    if narrowed_settings:
        raise UserError(
            f"{', '.join(narrowed_settings)}: in a sequence, continual.limit, kinds and gold say this. Remove it."
        )


def _walk(judge: Judge) -> None:
    """Process the requests. Finished ones are skipped."""
    work = judge.work
    last = len(work.tasks.tasks)
    evaluated_counts = evaluation_points(last)
    if not judge.done(0):
        judge.judge(0, Step(model=work.run.model, cost={"sec": 0.0, "peak_gb": None, "bytes": 0}))
    _ask_gold(judge)
    for t in range(1, last + 1):
        if judge.done(t) or (t not in evaluated_counts and work.course.mode != "sequential"):
            continue
        step = MODES[work.course.mode](work, t)
        if t in evaluated_counts:
            judge.judge(t, step)
            results = _write(judge, evaluated_counts[: evaluated_counts.index(t) + 1])
            note((f"{t}/{last}", "dim"), f" {work.tasks.tasks[t - 1].id}: {_line(results)}")
    _write(judge, evaluated_counts)


def _ask_gold(judge: Judge) -> None:
    """Evaluate the gold model, or raise before training if a request cannot be measured."""
    gold = judge.work.course.gold
    if gold and not judge.done(GOLD):
        judge.judge(GOLD, Step(model=gold, cost={}))
    required_matrix(_collect_judged(judge, [0]))


def _collect_judged(judge: Judge, request_counts: list[int]) -> Judged:
    """Return the values after these numbers of requests."""
    work = judge.work
    samples = tuple(judge.samples(t) for t in request_counts)
    return Judged(at=tuple(request_counts), samples=samples, count=len(work.tasks.tasks), headline=work.course.headline)


def _write(judge: Judge, request_counts: list[int]) -> dict[str, Any]:
    """Write `continual.json` for the requests evaluated so far, and return it."""
    work, judged = judge.work, _collect_judged(judge, request_counts)
    steps = [judge.step(t) for t in request_counts]
    results = {
        "protocol": PROTOCOL,
        "model": work.run.model,
        "method": work.run.method,
        "mode": work.course.mode,
        "order_seed": work.course.order,
        "seed": work.run.seed,
        "tasks": [
            {"id": task.id, "n_profiles": len(task.targets), "relation": task.relation} for task in work.tasks.tasks
        ],
        **document(judged, support=work.course.fr_support, oracle=_oracle(judge, judged)),
        "cost": [{"t": step["t"], **step["cost"]} for step in steps],
        "routing": [step["routing"] for step in steps] if work.course.mode == "experts" else None,
        "settings": {
            "continual": config.plain(asdict(work.course)),
            "method": config.plain(work.run.settings),
            "training": config.plain(work.run.training),
            "eval": _judging(work.run.eval, work.course),
            "data": judge.data[:12],
        },
    }
    atomic_write_json(work.out / RESULT, results)
    return results


def _oracle(judge: Judge, judged: Judged) -> list[float] | None:
    """Return the gold model's recall of each request, or None without one."""
    if not judge.work.course.gold:
        return None
    gold_judged = replace(judged, at=(0,), samples=(judge.samples(GOLD),), headline=judged.counts)
    return required_matrix(gold_judged)[0]


def _judge(run: Run, course: Course, tasks: Tasks) -> Judge:
    work = Work(run=run, course=course, tasks=tasks)
    judge = Judge(work=work, request=work.eval_request())
    require_usable(judge.request, run.data)
    return judge


def _explicit(run: Run, course: Course, suggested: Mapping[str, Any]) -> tuple[Run, Course]:
    """Return run and course with every setting checked and explicit, paths absolute."""
    method = config.method_of(run)
    training = config.build(Training, {**suggested, **run.training}, where="training")
    _require_adapters(run.method, course, method, training)
    if not (Path(run.out) / RECORD).exists():
        _require_effect(run, course, method, training, config.build(Training, suggested, where="training"))
    run = replace(
        run,
        model=absolute_or_name(run.model),
        data=absolute_or_name(run.data),
        out=str(Path(run.out).resolve()),
        settings=config.plain(asdict(method)),
        training=config.plain(asdict(training)),
    )
    adapters = str(Path(course.adapters).resolve()) if course.adapters else ""
    return run, replace(
        course, requests=absolute_or_name(course.requests), gold=absolute_or_name(course.gold), adapters=adapters
    )


def _require_adapters(name: str, course: Course, method: Method, training: Training) -> None:
    """Raise if the course needs adapters, and the method trains none."""
    goes_on = course.mode == "sequential" and course.reference == "initial"
    if course.mode in ("merge", "experts") and training.tune != "lora":
        raise UserError(f"Mode {course.mode} needs an adapter for each request: set training.tune=lora.")
    if goes_on and training.tune != "lora":
        raise UserError("continual.reference=initial goes on training one adapter: set training.tune=lora.")
    if (course.mode == "merge" or goes_on) and not method.needs().trains:
        setting = "continual.reference=initial" if goes_on else "continual.mode=merge"
        raise UserError(f"{setting} needs adapters that were trained, and {name} trains nothing. Leave it out.")


def _require_effect(run: Run, course: Course, method: Method, training: Training, suggested: Training) -> None:
    """Raise for a setting that can have no effect in any of the runs."""
    overridden = [
        (f"continual.{name}", f"without eval.{name}")
        for name in ("max_new_tokens", "batch_size")
        if name in run.eval and run.eval[name] != vars(course)[name]
    ]
    if course.mode == "joint" and training.max_steps <= 0:
        overridden.append(("continual.joint_steps", "with training.max_steps"))
    require_effect(
        {"continual": course, "method": method, "training": training},
        [*course.idle(), *overridden, *idle_in_run(method, training)],
        neutral={"training": suggested},
    )


def _claim(out: Path, run: Run, course: Course, tasks: Tasks, data_hash: str) -> None:
    """Write the settings, or raise if the folder holds another sequence, or one whose data have changed."""
    values = {
        **{key: value for key, value in run.to_mapping().items() if key != "out"},
        "continual": config.plain(asdict(course)),
        "tasks": [config.plain(asdict(task)) for task in tasks.tasks],
        "retain": list(tasks.retain),
        DATA_HASH: data_hash,
    }
    file = out / RECORD
    if not file.exists():
        if foreign(out):
            raise UserError(
                f"The output folder {out} is not empty, and holds no {RECORD} of an earlier call. Give another --out."
            )
        atomic_write_text(file, config.dump_yaml(values))
        return
    # older files record neither the evaluation settings nor the data
    old_values = {"eval": values["eval"], DATA_HASH: data_hash, **config.read_mapping(file)}
    old, new = (_spelled_out(mapping, run.method, course, file) for mapping in (old_values, values))
    if changed_keys := sorted(key for key in {*values, *_OPTIONAL} - {DATA_HASH} if old.get(key) != new.get(key)):
        raise UserError(
            f"{out} holds another sequence: {', '.join(changed_keys)} differ from {file}. Give another --out."
        )
    if old[DATA_HASH] != data_hash:
        raise UserError(
            f"The data of {run.data} are not those of the earlier calls: {out} has models that were trained and judged on other "
            "rows. Give another --out, or the data as they were."
        )


def _spelled_out(values: Mapping[str, Any], method: str, course: Course, file: Path) -> dict[str, Any]:
    """Return the values of a sequence with the defaults of settings that an earlier version did not have."""
    old_course = config.build(Course, values.get("continual", {}), where=f"continual in {file}")
    training = config.build(Training, values.get("training", {}), where=f"training in {file}")
    name, settings = config.name_and_settings(values.get("method", ""))
    if name == method:
        method_class = registry.load("methods", name)
        settings = config.settings_of(config.build(method_class, settings, where=f"method {name} in {file}"))
    return {
        **values,
        "continual": config.settings_of(old_course),
        "training": config.settings_of(training),
        "method": {"name": name, **settings},
        "eval": _judging(values["eval"], course),
    }


def _judging(eval_settings: Mapping[str, Any], course: Course) -> dict[str, Any]:
    """Return all evaluation settings that the answers depend on."""
    values = {"max_new_tokens": course.max_new_tokens, **eval_settings}
    settings = config.settings_of(config.build(config.EvalConfig, values, where="eval"))
    return {name: value for name, value in settings.items() if name != "batch_size"}


def _line(results: Mapping[str, Any]) -> str:
    """Return the state of the sequence in one line."""
    numbers = {"forgotten": results["metrics"]["CF"][-1], "earlier ones": results["metrics"]["HP"][-1]}
    numbers |= {"utility": results["U"][-1]} if results["U"] else {}
    return ", ".join(f"{name} {value:.0%}" for name, value in numbers.items() if value is not None)
