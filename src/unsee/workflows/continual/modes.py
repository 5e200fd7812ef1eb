"""Modes of continual unlearning: sequential, joint, merge, experts (arXiv 2605.05938)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from unsee.utils.files import atomic_folder, atomic_write_json
from unsee.workflows.continual.settings import Mode
from unsee.workflows.continual.work import Work, bytes_of, cost_of, folder_name, old_folder_name, unlearn_request


@dataclass(frozen=True, kw_only=True)
class Step:
    """Result of request t."""

    model: str
    """Model to be evaluated; with `experts`, the original model."""
    cost: Mapping[str, Any]
    experts: tuple[Path, ...] = ()
    """Adapters to route between, one per request so far, in order."""


def sequential(work: Work, t: int) -> Step:
    """Unlearn request t from the model after request t-1."""
    previous_folder = _place(work, t - 1) if t > 1 else None
    model, training = work.run.model, {}
    if previous_folder is not None and work.course.reference == "initial":
        training = {"adapter": str(previous_folder / "model")}
    elif previous_folder is not None:
        model = str(previous_folder)
    roles = work.roles(work.tasks.targets(t - 1, t), t)
    folder = unlearn_request(work, _place(work, t), model, roles, training)
    return Step(model=str(folder), cost=cost_of(folder))


def joint(work: Work, t: int) -> Step:
    """Unlearn all requests up to t at once from the original model.

    The upper reference, whose cost grows with t.
    """
    steps = int(work.run.training.get("max_steps", -1))
    training = {"max_steps": steps * t} if steps > 0 and work.course.joint_steps == "grow" else {}
    folder = unlearn_request(work, _place(work, t), work.run.model, work.roles(work.tasks.targets(0, t), t), training)
    return Step(model=str(folder), cost=cost_of(folder))


def merge(work: Work, t: int) -> Step:
    """Train an adapter for request t on the original model, and merge all adapters so far."""
    from unsee.workflows.continual import merging

    course = work.course
    folders = [_adapter(work, number) / "model" for number in range(1, t + 1)]
    cost = cost_of(folders[-1].parent)
    model_folder = _place(work, t) / "model"
    start = time.perf_counter()
    if not (model_folder / "merge.json").exists():
        settings = merging.Settings(
            how=course.merge,
            scale=course.scale,
            density=course.density,
            drop=course.drop,
            rank=course.merge_rank,
            seed=work.run.seed,
        )
        merged_adapter = merging.merge_adapters([merging.read_adapter(folder) for folder in folders], settings)
        with atomic_folder(model_folder) as temporary_folder:
            rank = merging.write_adapter(merged_adapter, temporary_folder, like=folders[-1])
            seconds = round(time.perf_counter() - start, 3)
            adapters = [folder.parent.name for folder in folders]
            atomic_write_json(temporary_folder / "merge.json", {"adapters": adapters, "rank": rank, "sec": seconds})
    return Step(model=str(model_folder.parent), cost={**cost, "merged_bytes": bytes_of(model_folder)})


def experts(work: Work, t: int) -> Step:
    """Train an adapter for request t on the original model. A router chooses per question."""
    folders = tuple(_adapter(work, number) for number in range(1, t + 1))
    return Step(model=work.run.model, cost=cost_of(folders[-1]), experts=folders)


MODES: Final[Mapping[Mode, Callable[[Work, int], Step]]] = {
    "sequential": sequential,
    "merge": merge,
    "experts": experts,
    "joint": joint,
}


def _place(work: Work, t: int) -> Path:
    return work.out / f"t-{t:03}"


def _adapter(work: Work, t: int) -> Path:
    """Return the adapter of request t on the original model, trained if missing.

    It does not depend on the order: the seed of a fresh retain sample is the request's position among all sorted ids.
    """
    task = work.tasks.tasks[t - 1]
    number = sorted(request.id for request in work.tasks.tasks).index(task.id) + 1
    folder = work.adapters / folder_name(task.id)
    if (named_folder := work.adapters / old_folder_name(task.id)).is_dir():
        folder = named_folder
    return unlearn_request(work, folder, work.run.model, work.roles(task.targets, number), {})
