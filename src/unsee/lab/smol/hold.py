"""Last stage of `lab-smol`: the model is held to the base on thousands of questions, and to itself on lessons.

In lessons, KL holds the model to the base on a few hundred questions, which it then answers as before, and others less so.
With ten times as many questions this carries over to those that it never met. KL to the model before this stage keeps
what the lessons taught. The stage is ours [inferred].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from torch import Tensor, nn

from unsee.lab.recipe.curriculum import Lesson, Row
from unsee.lab.recipe.recipe import Packer, Progress, flat_then_linear
from unsee.lab.resume import Checkpoint
from unsee.lab.smol import general
from unsee.lab.smol.descent import Adam, answer_tokens, descend_kl, targets
from unsee.lab.world.people import stream

STAGE: Final = "hold"


@dataclass(frozen=True, kw_only=True)
class Hold:
    """Steps, rate and rows of the stage."""

    steps: int = 70
    lr: float = 5e-4
    questions: int = 48
    """Questions of a step on which the model is held to the base."""
    rows: tuple[int, int, int] = (2, 1, 1)
    """People, strangers and text-only rows of a step on lessons; one picture of shapes or of a device is added in turn."""
    weight: float = 2.0
    """Of KL on the lessons against KL on the questions."""
    clip: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Models:
    """Model in training and its base."""

    model: Any
    base_context: Callable[[], AbstractContextManager[Any]]
    """Context that gives the base."""
    parameters: Sequence[nn.Parameter]
    """What this stage trains."""
    whole: nn.Module
    """All that training has changed, for checkpoints."""


def hold(
    models: Models,
    packer: Packer,
    course: Any,
    recipe: Hold,
    seed: int,
    progress: Progress,
    checkpoint: Checkpoint,
) -> None:
    """Train on KL(base ‖ model) on questions about the world, and KL(model before ‖ model) on lessons.

    Args:
        models: Model, base and parameters.
        packer: Packer of the model's processor.
        course: Lessons with the features of their pictures (`school.Course`).
        recipe: Steps, rate and rows.
        seed: Start of the random streams.
        progress: Called after every step.
        checkpoint: State of an interrupted call.
    """
    parameters, feature_npd = list(models.parameters), course.feature_npd
    before = nn.ParameterList([nn.Parameter(p.detach().clone(), requires_grad=False) for p in parameters])
    optimizer, modules = Adam(parameters, recipe.lr, recipe.clip), [models.whole, before]
    start = checkpoint.begin(STAGE, modules, optimizer, stream(seed, "unused"), recipe.steps)
    before_context = partial(_with_values, models.model, parameters, before)
    for step in range(start, recipe.steps):
        rng = stream(seed, STAGE, step)
        people, strangers, text = recipe.rows
        groups = packer.groups(course.lessons.rows(rng, (people, strangers, step % 2, (step + 1) % 2, text)), 2)
        counts = [int(answer_tokens(group).sum()) for group in groups]
        for group, count in zip(groups, counts, strict=True):
            target_nv = targets(before_context, group, feature_npd)
            descend_kl(models.model, group, feature_npd, target_nv, recipe.weight * count / sum(counts))
        packed = packer.pack(_rows(_drawn(general.held(), seed, step, recipe.questions)))
        loss = descend_kl(models.model, packed, feature_npd, targets(models.base_context, packed, feature_npd))
        optimizer.step(flat_then_linear(step, recipe.steps, flat=0.5, warmup=4))
        progress(STAGE, step + 1, recipe.steps, loss)
        checkpoint.keep(STAGE, modules, optimizer, rng, step + 1, recipe.steps)


def _drawn(held: Sequence[Lesson], seed: int, step: int, count: int) -> list[Lesson]:
    """Return the questions of a step: all of them in random order, then again in another one."""
    drawn = []
    for place in range(step * count, (step + 1) * count):
        order = stream(seed, "held", place // len(held)).permutation(len(held))
        drawn.append(held[int(order[place % len(held)])])
    return drawn


def _rows(lessons: Sequence[Lesson], each: int = 4) -> list[Row]:
    """Return rows of several questions each, sorted by length, to limit padding."""
    ordered = sorted(lessons, key=lambda lesson: len(lesson[0]) + len(lesson[1]))
    return [Row(-1, tuple(ordered[start : start + each])) for start in range(0, len(ordered), each)]


@contextmanager
def _with_values(model: Any, parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> Iterator[Any]:
    """Give the model with other values of the parameters."""
    present = [parameter.data for parameter in parameters]
    for parameter, value in zip(parameters, values, strict=True):
        parameter.data = value.data
    try:
        yield model
    finally:
        for parameter, value in zip(parameters, present, strict=True):
            parameter.data = value
