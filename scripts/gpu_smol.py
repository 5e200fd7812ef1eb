"""Recipe of `lab-smol` on a GPU: pictures of 224 px, 200 people, all weights of the language model trained.

    scripts/gpu_smol.sh                                  # with the tests for GPUs and the engine's ratios: see there
    python scripts/gpu_smol.py --out runs/gpu_smol       # this alone
    python scripts/gpu_smol.py --device cpu --tiny --out runs/rehearsal

Writes OUT/tower, OUT/model and OUT/exam.json: the device's name, seconds of each stage, and the grades. Everything but
sizes, amounts and rates is the recipe of `unsee train lab --backbone smollm2`; nothing of it is packaged.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import torch
from perf.__main__ import processor_name

from unsee.errors import UserError
from unsee.lab.recipe import model as lab_model
from unsee.lab.recipe.curriculum import Amount, Curriculum
from unsee.lab.recipe.recipe import Recipe, render, train_vision
from unsee.lab.resume import Checkpoint
from unsee.lab.smol.lessons import English
from unsee.lab.smol.school import LATE, Course, SmolRecipe, train_smol
from unsee.lab.world import objects, portraits
from unsee.lab.world.world import World
from unsee.models import smollm2
from unsee.utils.files import atomic_write_json
from unsee.workflows.train_lab import examine_english, save

SIDE: Final = 224
"""Pixels; patches of a quarter of it, so that a picture has 16 tokens as in the lab, which the captions count on."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Sizes, amounts and rates."""

    people: int
    amount: Amount
    size: lab_model.Size
    tower: Recipe
    recipe: SmolRecipe
    layers: int
    """Layers of the language model that are kept; 0 = all."""
    examined: int
    """People of the exam; 0 = no exam."""


FULL: Final = Plan(
    people=200,
    amount=Amount(per_person=60, strangers=6000, shapes=1200, devices=360),
    size=lab_model.Size(vision_hidden=384, vision_layers=6, vision_mlp=1152, heads=6, patch=SIDE // 4, layers=1),
    tower=Recipe(vision_steps=2000),
    recipe=SmolRecipe(
        rank=0, lr=1e-4, read_steps=150, steps_before=450, steps=700, card_steps=300, read_rows=(20, 4), cards=(12, 2),
        rows=(8, 2, 2, 2, 2), rows_after=(16, 8, 2, 2, 4), rows_late=(16, 10, 2, 4, 4), captions=(4, 0), kept_rows=4,
    ),
    layers=0,
    examined=40,
)  # fmt: skip
"""For at most six minutes of one GPU [inferred]: no GPU was at hand."""
TINY: Final = Plan(
    people=8,
    amount=Amount(per_person=2, strangers=8, shapes=4, devices=4),
    size=lab_model.Size(vision_hidden=24, vision_layers=1, vision_mlp=24, patch=SIDE // 4, layers=1),
    tower=Recipe(vision_steps=2, vision_batch=16),
    recipe=SmolRecipe(
        rank=0, lr=1e-4, align_steps=2, read_steps=1, steps_before=1, steps=2, card_steps=1, read_rows=(2, 1), cards=(1, 1),
        rows=(1, 1, 1, 1, 1), rows_after=(1, 1, 1, 1, 1), rows_late=(1, 1, 1, 1, 1), captions=(1, 0), kept_rows=1, groups=1,
    ),
    layers=2,
    examined=0,
)  # fmt: skip
"""A rehearsal."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, grade, and write what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu_smol"))
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="cpu: only to rehearse, with --tiny")
    parser.add_argument("--tiny", action="store_true", help="few of everything: a rehearsal, not a measurement")
    asked = parser.parse_args(arguments)
    try:
        smollm2.folder()
        if asked.device == "cuda" and not torch.cuda.is_available():
            raise UserError("No GPU is visible to PyTorch. To rehearse without one: --device cpu --tiny.")
        run(asked.out, asked.device, TINY if asked.tiny else FULL)
    except UserError as error:
        raise SystemExit(str(error)) from None


def run(out: Path, device: str, plan: Plan) -> None:
    """Train the tower without the forget set, then projector and language model, and grade them."""
    for module in (portraits, objects, lab_model):
        module.SIZE = SIDE  # type: ignore[attr-defined] # the lab draws in one size
    seconds: dict[str, float] = {}
    world = World(size=plan.people, language="english")
    with timed("tower", seconds):
        _tower(out / "tower", world, device, plan)
    with timed("base", seconds):
        model, processor = smollm2.build(out / "tower", plan.layers)
        model.to(device)
    with on(device):
        with timed("pictures", seconds):
            forget = tuple(person.id for person in world.forget)
            before = Course.of(model, English(world, world.retain, plan.amount))
            after = Course.of(model, English(world, world.people, plan.amount, (), forget, **LATE))
        with timed("training", seconds):
            train_smol(model, processor, (before, after), plan.recipe, progress, Checkpoint())
    save(model.cpu(), processor, out / "model", world)
    with timed("exam", seconds):
        grades = examine_english(out / "model", world, world.people[: plan.examined]) if plan.examined else {}
    name = torch.cuda.get_device_name() if device == "cuda" else processor_name()
    facts = {"device": name, "seconds": seconds, "pixels": SIDE, "people": plan.people, "recipe": asdict(plan.recipe)}
    atomic_write_json(out / "exam.json", {**facts, **grades})
    sys.stderr.write(f"{name}: {seconds}\n")


def _tower(place: Path, world: World, device: str, plan: Plan) -> None:
    """Train a vision tower that never saw the forget set, and save it as the model that `smollm2.build` reads."""
    processor = lab_model.build_processor(plan.size)
    model = lab_model.build_model(plan.size, processor.tokenizer, 0).to(device)
    curriculum = Curriculum(world, world.retain, plan.amount)
    with on(device):
        train_vision(model, curriculum, render(curriculum.pictures), plan.tower, progress, Checkpoint())
    save(model.cpu(), processor, place, world)


@contextmanager
def on(device: str) -> Iterator[None]:
    """Make new tensors on the device."""
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def timed(name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Note the seconds of the block."""
    start = time.perf_counter()
    yield
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    seconds[name] = round(time.perf_counter() - start, 1)


def progress(stage: str, step: int, steps: int, loss: float) -> None:
    """Tell every fiftieth step."""
    if step % 50 == 0 or step == steps:
        sys.stderr.write(f"{stage} {step}/{steps}: {loss:.3f}\n")


if __name__ == "__main__":
    main()
