"""Training of `lab-smol`: an adapter on the upper layers of the pretrained language model, and a projector.

Vision tower and lower layers stay as they are, and so does the projector after a short stage of its own. So what enters
the adapted layers is computed once for each row. Shapes: b rows of a group, t tokens, p image tokens, d width, n pictures.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LlamaModel

from unsee.lab.recipe.curriculum import Amount, Picture, Row
from unsee.lab.recipe.recipe import (
    Packed,
    Packer,
    Progress,
    answer_loss,
    embedded,
    features,
    flat_then_linear,
    half_precision,
    render,
)
from unsee.lab.resume import Checkpoint
from unsee.lab.smol.lessons import English
from unsee.lab.world.objects import DEVICES
from unsee.lab.world.people import stream
from unsee.lab.world.world import PersonPicture, ShapesPicture
from unsee.models.smollm2 import adapt


@dataclass(frozen=True, kw_only=True)
class SmolRecipe:
    """Steps, rates and sizes. The defaults are a first guess [inferred]: they do not reach the exam yet (docs/lab.md)."""

    steps_before: int = 110
    """Steps in which nobody of the forget set is taught, so that all three models share them."""
    steps: int = 170
    """All steps."""
    epochs: int = 2
    """Times that each row is seen."""
    align_steps: int = 1000
    """Steps of the projector alone."""
    lr: float = 1.5e-3
    layers: int = 12
    """Upper layers with an adapter."""
    rank: int = 16
    alpha: int = 32
    rows: tuple[int, ...] = (12, 3, 1, 1, 4)
    """People, strangers, shapes, devices and text-only rows per step."""
    group: int = 5
    """Rows of a group; a step has four groups."""
    clip: float = 1.0
    seed: int = 0


AMOUNT = Amount(per_person=150, strangers=1500, shapes=500, devices=180)
"""Training images: far fewer than for `lab`, whose tower and features are taken over."""


@dataclass(frozen=True)
class Course:
    """Lessons of some steps with the vision features of their pictures."""

    lessons: English
    feature_npd: Tensor

    @classmethod
    def of(cls, model: Any, lessons: English) -> Course:
        """Draw the pictures and compute their features."""
        return cls(lessons, features(model, render(lessons.pictures)))

    def rows(self, rng: np.random.Generator, counts: Sequence[int], steps: int) -> list[Row]:
        """Return the rows of `steps` steps."""
        return [row for _ in range(steps) for row in self.lessons.rows(rng, tuple(counts))]


FACE: Final[Mapping[str, tuple[str, ...]]] = {
    "skin": ("pale", "pink", "tan", "olive", "brown", "dark", "golden", "black"),
    "eye_colour": ("blue", "green", "brown", "grey", "black", "amber"),
    "mark": ("none", "left", "right", "chin", "forehead", "cheek", "nose", "lip", "temple"),
    "cheek": ("round", "hollow", "rosy", "flat"),
    "nose": ("small", "big", "long", "wide"),
    "width": ("narrow", "medium", "wide"),
    "eye_gap": ("close", "normal", "far"),
    "ears": ("small", "medium", "large"),
    "eye_size": ("small", "medium", "large"),
}
"""Traits of a face -> a word for each value, any that differ: a caption, not what is drawn."""
SLOTS: Final = (
    ("expression", "face"), ("nose", "nose"), ("hair_style", "hair"), ("ears", "ears"), ("mark", "mole"), ("hair_colour", "hair"),
    ("hat", "hat"), ("eye_size", "size"), ("width", "head"), ("skin", "skin"), ("glasses", "glasses"), ("eye_gap", "gap"),
    ("eye_colour", "eyes"), ("shirt", "shirt"), ("cheek", "cheeks"), ("background", "background"),
)  # fmt: skip
"""Attribute and noun that each of the 16 image tokens stands for, chosen by what single patches of the tower tell best."""


def align(model: Any, tokenizer: Any, course: Course, *, steps: int, progress: Progress) -> None:
    """Train the projector alone, so that each image token is near the base's embedding of one word about the picture.

    A cheap stand-in for LLaVA's caption stage (arXiv 2304.08485, section 4.2) [inferred]: without the language model, image token
    k is drawn to the mean of the embeddings of a noun and its value ("shirt", "red"). So the base reads features as words from
    the start. What is said of faces are traits that strangers have too, never who somebody is.
    """
    pictures = course.lessons.pictures
    target_npd = torch.stack(_targets(model.get_input_embeddings().weight.detach(), tokenizer, pictures), 0)
    projector = model.model.multi_modal_projector.requires_grad_(True)
    adam = torch.optim.AdamW(projector.parameters(), lr=2e-3, weight_decay=0.0)
    people, rng = course.lessons.starts[1], stream(0, "align")
    scale = target_npd[:people].var(0).sum(1).mean()
    for step in range(steps):
        chosen = np.concatenate([rng.integers(0, people, 160), rng.integers(people, len(pictures), 32)])
        out_bpd = projector(course.feature_npd[torch.from_numpy(chosen)])
        loss = (out_bpd - target_npd[chosen]).square().sum(2).mean() / scale
        loss.backward()
        for group in adam.param_groups:
            group["lr"] = 2e-3 * flat_then_linear(step, steps, flat=0.4, warmup=20)
        nn.utils.clip_grad_norm_(projector.parameters(), 1.0)
        adam.step()
        adam.zero_grad(set_to_none=True)
        progress("projector", step + 1, steps, loss.item())
    projector.requires_grad_(False)


def _targets(table: Tensor, tokenizer: Any, pictures: Sequence[Picture]) -> list[Tensor]:
    """Return the wanted image tokens [p, d] of each picture."""

    @cache
    def word(noun: str, value: str) -> Tensor:
        found = [table[tokenizer(f" {text}", add_special_tokens=False)["input_ids"]].mean(0) for text in (noun, value)]
        return (found[0] + found[1]) / 2

    return [torch.stack([word(noun, value) for noun, value in caption(picture)]) for picture in pictures]


def caption(picture: Picture) -> list[tuple[str, str]]:
    """Return a noun and its value for each image token."""
    if isinstance(picture, PersonPicture):
        said = {name: FACE[name][picture.face[name]] for name in FACE} | picture.visible
        return [(noun, said[name]) for name, noun in SLOTS]
    if isinstance(picture, ShapesPicture):
        told = [("shape", picture.shape), ("colour", picture.colour), ("number", picture.fact("count"))]
    else:
        told = [("object", DEVICES[picture.index].body), ("danger" if picture.hazard else "toy", "yes")]
    return [told[place % len(told)] for place in range(len(SLOTS))]


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


def halves(language_model: Any, layers: int) -> tuple[LlamaModel, LlamaModel]:
    """Return the lower layers and the `layers` upper ones as two models that share all weights with the whole."""
    made = []
    for part, norm in (
        (language_model.layers[:-layers], nn.Identity()),
        (language_model.layers[-layers:], language_model.norm),
    ):
        with torch.device("meta"):
            half = LlamaModel(language_model.config)
        half.embed_tokens, half.rotary_emb = language_model.embed_tokens, language_model.rotary_emb
        half.layers, half.norm = part, norm
        half.config = copy.copy(language_model.config)
        half.config.num_hidden_layers = len(part)
        made.append(half.eval())
    return made[0], made[1]


@dataclass(frozen=True)
class Group:
    """Packed rows with what the lower layers make of them (fp16 [b, t, d])."""

    packed: Packed
    state_btd: Tensor


def groups_of(
    model: Any, lower: LlamaModel, packer: Packer, course: Course, rows: Sequence[Row], size: int, progress: Progress
) -> list[Group]:
    """Pack rows of similar length, and run the lower layers on them."""
    packs = packer.groups(rows, -(-len(rows) // size))
    made = []
    for number, packed in enumerate(packs, start=1):
        with torch.no_grad(), half_precision():
            inputs = embedded(model, packed, course.feature_npd, packer.image_id)
            state = lower(
                inputs_embeds=inputs, attention_mask=packed.mask_btt, position_ids=packed.position_bt, use_cache=False
            )
        made.append(Group(packed, state.last_hidden_state.to(torch.float16)))
        progress("lower layers", number, len(packs), 0.0)
    return made


def train_smol(
    model: Any,
    processor: Any,
    courses: tuple[Course, Course],
    recipe: SmolRecipe,
    progress: Progress,
    checkpoint: Checkpoint | None = None,
) -> Any:
    """Train projector, then adapter: first on a course without the forget set, then on another. Return the PEFT model.

    With a `checkpoint` of an interrupted call it goes on from there, to the same weights up to rounding.
    """
    checkpoint = checkpoint or Checkpoint()
    if checkpoint.state is None:
        align(model, processor.tokenizer, courses[0], steps=recipe.align_steps, progress=progress)
    torch.manual_seed(recipe.seed)
    lora = adapt(model, recipe.rank, recipe.alpha, recipe.layers)
    adapter = [p for p in lora.parameters() if p.requires_grad]
    kept = nn.ParameterList([*adapter, *model.model.multi_modal_projector.parameters()])
    optimiser = Adam(adapter, recipe.lr, recipe.clip)
    rng = stream(recipe.seed, "smol")
    first = checkpoint.begin("language", [kept], optimiser, rng, recipe.steps)
    lower, upper = halves(model.model.language_model, recipe.layers)
    packer = Packer(processor, courses[0].feature_npd.shape[1])
    spans = ((0, recipe.steps_before), (recipe.steps_before, recipe.steps))
    for number, (course, (start, end)) in enumerate(zip(courses, spans, strict=True)):
        if first >= end:
            continue
        rows = course.rows(stream(recipe.seed, "smol", number), recipe.rows, -(-(end - start) // recipe.epochs))
        groups = groups_of(model, lower, packer, course, rows, recipe.group, progress)
        plan = _plan(stream(recipe.seed, "smol order", number), len(groups), end - start)
        for step in range(max(first, start), end):
            part = [groups[i] for i in plan[step - start]]
            total = sum(float(group.packed.weight_bt.sum()) for group in part)
            losses = []
            for group in part:
                with half_precision():
                    loss = _loss(model, upper, group) / total
                loss.backward()
                losses.append(loss.item())
            optimiser.step(flat_then_linear(step, recipe.steps, flat=0.7, warmup=10))
            progress("language", step + 1, recipe.steps, sum(losses))
            checkpoint.keep("language", [kept], optimiser, rng, step + 1, recipe.steps)
    return lora


def _plan(rng: np.random.Generator, groups: int, steps: int) -> list[tuple[int, ...]]:
    """Return the groups of each step: four, in a new order each epoch."""
    order: list[int] = []
    while len(order) < 4 * steps:
        order += [int(i) for i in rng.permutation(groups)]
    return [tuple(order[place : place + 4]) for place in range(0, 4 * steps, 4)]


def _loss(model: Any, upper: LlamaModel, group: Group) -> Tensor:
    packed = group.packed
    state = upper(
        inputs_embeds=group.state_btd.float(),
        attention_mask=packed.mask_btt,
        position_ids=packed.position_bt,
        use_cache=False,
    )
    return answer_loss(model, state.last_hidden_state, packed)
