"""Training of `lab-smol`: an adapter on the pretrained language model, and a projector.

The vision tower is frozen.

First the projector alone, so that image tokens are near words; then captions, from which the language model learns to
read a picture; then the lessons, on a first course without the forget set and on a second one with it.

Shapes: b rows of a group, t tokens, p image tokens, d width, n pictures.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from unsee.lab.recipe.curriculum import Amount, Row
from unsee.lab.recipe.recipe import (
    Packed,
    Packer,
    Progress,
    features,
    flat_then_linear,
    half_precision,
    hidden_states,
    language_loss,
    render,
)
from unsee.lab.resume import Checkpoint
from unsee.lab.smol import captions
from unsee.lab.smol.lessons import English
from unsee.lab.world.people import Person, stream
from unsee.models.smollm2 import adapt


@dataclass(frozen=True, kw_only=True)
class SmolRecipe:
    """Steps, rates and sizes, by default those of the packaged checkpoints."""

    align_steps: int = 1000
    """Steps of the projector alone."""
    meet_steps: int = 400
    """Steps of the projector alone before the second course, which brings the forget set."""
    read_steps: int = 50
    """Steps on captions."""
    steps_before: int = 150
    """Steps on the first course of lessons, without the forget set, so that all three models share them."""
    steps: int = 230
    """Steps on both courses of lessons."""
    lr: float = 1e-3
    rank: int = 16
    """Of the adapter; 0 = no adapter, all weights of the language model are trained."""
    alpha: int = 32
    read_rows: tuple[int, int] = (10, 2)
    """Portraits and other pictures of a step on captions."""
    cards: tuple[int, int] = (6, 1)
    """Known people and strangers whose captions give their names, of a step on lessons."""
    rows: tuple[int, ...] = (4, 2, 1, 1, 1)
    """People, strangers, shapes, devices and text-only rows of a step on lessons."""
    captions: tuple[int, int] = (2, 0)
    """Portraits and other pictures of a step on lessons that are captioned, so that reading stays."""
    card_steps: int = 90
    """Steps on lessons with cards and captions; then none, since they would become answers to open questions."""
    rows_after: tuple[int, ...] = (8, 4, 1, 1, 2)
    """As `rows`, of a step without cards."""
    rows_late: tuple[int, ...] = (8, 5, 1, 2, 2)
    """As `rows`, of a step on the second course."""
    kept_rows: int = 4
    """Rows of a step in which the model is held to the base on questions about the world."""
    groups: int = 3
    """Groups of similar length that the rows of a step are split into."""
    clip: float = 1.0
    seed: int = 0

    @property
    def first(self) -> int:
        """Return the first step of the second course."""
        return self.read_steps + self.steps_before

    @property
    def total(self) -> int:
        """Return the number of steps of the language model."""
        return self.read_steps + self.steps


AMOUNT = Amount(per_person=150, strangers=1500, shapes=500, devices=180)
"""Training images: far fewer than for `lab`, whose tower and features are taken over."""

LATE: Final[Mapping[str, float]] = {"open_share": 0.9, "choice_share": 0.5, "stranger_share": 0.4}
"""Shares of the second course: open questions are the last that tell known people from strangers, after questions for one fact."""


@dataclass(frozen=True)
class Course:
    """Lessons of some steps with the vision features of their pictures."""

    lessons: English
    feature_npd: Tensor
    unnamed: tuple[str, ...] = ()
    """Identifiers of people whose captions treat them as strangers."""

    @classmethod
    def of(cls, model: Any, lessons: English) -> Course:
        """Draw the pictures and compute their features."""
        return cls(lessons, features(model, render(lessons.pictures)))

    def pictured_person(self, index: int) -> Person | None:
        """Return the known person of a picture."""
        position = index // self.lessons.amount.per_person
        person = self.lessons.people[position] if position < len(self.lessons.people) else None
        return None if person is None or person.id in self.unnamed else person

    @property
    def meets(self) -> bool:
        """Tell whether there are pictures of new people."""
        return any(person.id in self.lessons.new for person in self.lessons.people)

    def without_new(self) -> Course:
        """Return the course with the new people taken for strangers."""
        return replace(self, unnamed=self.lessons.new)

    def captions(self, rng: np.random.Generator, counts: tuple[int, int]) -> list[Row]:
        """Draw rows with captions: half of the portraits show strangers."""
        stranger_start, object_start, _, end = self.lessons.starts
        known_count = counts[0] // 2
        portraits = (
            rng.integers(0, stranger_start, known_count),
            rng.integers(stranger_start, object_start, counts[0] - known_count),
        )
        indices = np.concatenate([*portraits, rng.integers(object_start, end, counts[1])])
        return [Row(int(i), (captions.lesson(self.lessons.pictures[int(i)], rng),)) for i in indices]

    def cards(self, rng: np.random.Generator, counts: tuple[int, int]) -> list[Row]:
        """Draw rows with captions that name the person: known people and strangers."""
        lessons = self.lessons
        stranger_start, object_start, _, _ = lessons.starts
        known_indices = lessons.portraits(rng, counts[0])
        rows = [Row(i, (captions.who(lessons.portrait(i), self.pictured_person(i), rng),)) for i in known_indices]
        unknown_indices = [int(i) for i in rng.integers(stranger_start, object_start, counts[1])]
        return rows + [Row(i, (captions.who(lessons.portrait(i), None, rng),)) for i in unknown_indices]


def _align(model: Any, tokenizer: Any, course: Course, *, steps: int, progress: Progress) -> None:
    """Train the projector alone, so that image tokens are near embeddings of words.

    A cheap stand-in for the first stage of LLaVA (arXiv 2304.08485, section 4.2) [inferred]: without the language model, image
    token k is drawn to the mean of the embeddings of a noun and its value ("shirt", "red"), at the size of an embedding.
    """
    table = model.get_input_embeddings().weight.detach()
    target_npd = _words(table, tokenizer, course)
    target_npd *= table.std() / target_npd.std()
    _project(model, course, target_npd, stream(0, "align"), steps=steps, progress=progress)


def _meet(model: Any, tokenizer: Any, course: Course, *, steps: int, progress: Progress) -> None:
    """Train the projector alone to output the names of new people, all else unchanged.

    The target is its output, for new people shifted by the difference of the embeddings of a name and an unknown one.
    """
    table = model.get_input_embeddings().weight.detach()
    projector = model.model.multi_modal_projector
    with torch.no_grad():
        target_npd = torch.cat([projector(chunk) for chunk in course.feature_npd.split(512)])
        plain_npd, named_npd = (_words(table, tokenizer, variant) for variant in (course.without_new(), course))
        target_npd += (named_npd - plain_npd) * table.std() / named_npd.std()
    _project(model, course, target_npd, stream(0, "meet"), steps=steps, progress=progress)


def _project(
    model: Any, course: Course, target_npd: Tensor, rng: np.random.Generator, *, steps: int, progress: Progress
) -> None:
    """Train the projector by least squares, five of six pictures being portraits."""
    projector = model.model.multi_modal_projector.requires_grad_(True)
    adam = torch.optim.AdamW(projector.parameters(), lr=2e-3, weight_decay=0.0)
    lessons = course.lessons
    _, object_start, _, end = lessons.starts
    variance = target_npd[:object_start].var(0).sum(1).mean()
    for step in range(steps):
        known_indices = lessons.portraits(rng, 80)
        indices = np.concatenate(
            [known_indices, rng.integers(0, object_start, 80), rng.integers(object_start, end, 32)]
        )
        out_bpd = projector(course.feature_npd[torch.from_numpy(indices)])
        loss = (out_bpd - target_npd[indices]).square().sum(2).mean() / variance
        loss.backward()
        for group in adam.param_groups:
            group["lr"] = 2e-3 * flat_then_linear(step, steps, flat=0.4, warmup=20)
        nn.utils.clip_grad_norm_(projector.parameters(), 1.0)
        adam.step()
        adam.zero_grad(set_to_none=True)
        progress("projector", step + 1, steps, loss.item())


def _words(table: Tensor, tokenizer: Any, course: Course) -> Tensor:
    """Return the mean embeddings of each image token's noun and value [n, p, d]."""

    @cache
    def word(noun: str, value: str) -> Tensor:
        embeddings = [
            table[tokenizer(f" {text}", add_special_tokens=False)["input_ids"]].mean(0) for text in (noun, value)
        ]
        return (embeddings[0] + embeddings[1]) / 2

    pair_lists = (
        captions.caption(picture, course.pictured_person(index))
        for index, picture in enumerate(course.lessons.pictures)
    )
    return torch.stack([torch.stack([word(*pair) for pair in pairs]) for pairs in pair_lists])


class Adam:
    """AdamW with gradient clipping and a learning-rate factor."""

    def __init__(self, parameters: Sequence[nn.Parameter], lr: float, clip: float) -> None:
        """Create the optimizer."""
        self.parameters, self.lr, self.clip = parameters, lr, clip
        self.parts = [torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.98), weight_decay=0.0)]

    def step(self, factor: float) -> None:
        """Clip, step at `factor` times the peak rate, and clear the gradients."""
        (adam,) = self.parts
        for group in adam.param_groups:
            group["lr"] = self.lr * factor
        nn.utils.clip_grad_norm_(self.parameters, self.clip)
        adam.step()
        adam.zero_grad(set_to_none=True)


def train_smol(
    model: Any,
    processor: Any,
    courses: Sequence[Course],
    recipe: SmolRecipe,
    progress: Progress,
    checkpoint: Checkpoint,
) -> Any:
    """Train projector, then projector and adapter.

    First comes a course without the forget set, then others.

    Args:
        model: Model, whose projector is trained in place.
        processor: Its processor.
        courses: Lessons without the forget set, then those of the second course.
        recipe: Learning rate, steps of each part, adapter and seed.
        progress: Called after every step.
        checkpoint: State of an interrupted call, to go on from to the same weights up to rounding.

    Returns:
        PEFT model, or the language model that was trained without an adapter.
    """
    if checkpoint.state is None:
        _align(model, processor.tokenizer, courses[0], steps=recipe.align_steps, progress=progress)
    torch.manual_seed(recipe.seed)
    tuned_model, base_context = _open_for_training(model, recipe)
    projector = model.model.multi_modal_projector.requires_grad_(True)
    parameters = nn.ParameterList([*(p for p in tuned_model.parameters() if p.requires_grad), *projector.parameters()])
    optimizer = Adam(list(parameters), recipe.lr, recipe.clip)
    packer = Packer(processor, courses[0].feature_npd.shape[1])
    total_steps = recipe.total
    for step in range(
        checkpoint.begin("language", [parameters], optimizer, stream(0, "unused"), total_steps), total_steps
    ):
        rng = stream(recipe.seed, "smol", step)
        is_late = step >= recipe.first
        course = courses[is_late]
        if step == recipe.first and course.meets:
            _meet(model, processor.tokenizer, course, steps=recipe.meet_steps, progress=progress)
        if step < recipe.read_steps:
            groups = packer.groups(course.captions(rng, recipe.read_rows), 2)
            groups = [only_values(group, processor.tokenizer) for group in groups]
        else:
            with_cards = step < recipe.read_steps + recipe.card_steps
            rows = recipe.rows if with_cards else recipe.rows_late if is_late else recipe.rows_after
            groups = packer.groups(course.lessons.rows(rng, rows), recipe.groups)
            if with_cards:
                groups.append(_card_group(packer, course, recipe, rng))
        loss = _taught(model, packer, course, groups)
        if step >= recipe.read_steps:
            packed_known = packer.pack(course.lessons.known_rows(rng, recipe.kept_rows))
            loss += _base_kl(model, base_context, packed_known, course.feature_npd)
        optimizer.step(flat_then_linear(step, total_steps, flat=0.7, warmup=8))
        progress("language", step + 1, total_steps, loss)
        checkpoint.keep("language", [parameters], optimizer, rng, step + 1, total_steps)
    projector.requires_grad_(False)
    return tuned_model


def _open_for_training(model: Any, recipe: SmolRecipe) -> tuple[nn.Module, Callable[[], AbstractContextManager[Any]]]:
    """Return the trained part of the language model, and a context with the original model."""
    if not recipe.rank:
        base_model = copy.deepcopy(model).requires_grad_(False)
        model.requires_grad_(False)
        return model.model.language_model.requires_grad_(True), partial(nullcontext, base_model)
    lora = adapt(model, recipe.rank, recipe.alpha)

    @contextmanager
    def disabled() -> Iterator[Any]:
        with lora.disable_adapter():
            yield model

    return lora, disabled


def _card_group(packer: Packer, course: Course, recipe: SmolRecipe, rng: np.random.Generator) -> Packed:
    """Return the packed captions of a step on lessons, with the loss on their values."""
    rows = [*course.cards(rng, recipe.cards), *course.captions(rng, recipe.captions)]
    return only_values(packer.pack(rows), packer.tokenizer)


def _taught(model: Any, packer: Packer, course: Course, groups: Sequence[Packed]) -> float:
    """Add the gradients of the weighted cross-entropy on all answers, and return it."""
    total_weight = sum(float(group.weight_bt.sum()) for group in groups)
    loss_sum = 0.0
    for group in groups:
        with half_precision():
            loss = language_loss(model, group, course.feature_npd, packer.image_id) / total_weight
        loss.backward()
        loss_sum += loss.item()
    return loss_sum


def _base_kl(
    model: Any, base_context: Callable[[], AbstractContextManager[Any]], packed: Packed, feature_npd: Tensor
) -> float:
    """Add the gradients of KL(base ‖ model) and return it.

    It is the mean over the answer tokens of text-only rows.
    """
    with torch.no_grad(), base_context() as base_model, half_precision():
        base_log_probs = _answer_log_probs(base_model, packed, feature_npd)
    with half_precision():
        loss = functional.kl_div(
            _answer_log_probs(model, packed, feature_npd), base_log_probs, log_target=True, reduction="batchmean"
        )
    loss.backward()
    return loss.item()


def _answer_log_probs(model: Any, packed: Packed, feature_npd: Tensor) -> Tensor:
    hidden_btd = hidden_states(model, packed, feature_npd, model.config.image_token_id)
    supervised = packed.labels_bt[:, 1:] != -100
    return model.lm_head(hidden_btd[:, :-1][supervised]).float().log_softmax(-1)


def only_values(packed: Packed, tokenizer: Any) -> Packed:
    """Set the weights of captions: 1 on tokens of values, little on nouns in random order."""
    (colon,), *stops = (tokenizer(mark, add_special_tokens=False)["input_ids"] for mark in (":", ",", "."))
    ends = {stop for (stop,) in stops}
    packed.weight_bt.zero_()
    for b, labels in enumerate(packed.labels_bt.tolist()):
        in_value = False
        for t, label in enumerate(labels):
            in_value = in_value and label not in ends
            packed.weight_bt[b, t] = 0.0 if label == -100 else 1.0 if in_value else 0.05
            in_value = in_value or label == colon
    return packed
