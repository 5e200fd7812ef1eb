"""Training of a lab model from a world: curriculum, vision tower, language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unsee.lab.recipe.curriculum import Amount, Curriculum
from unsee.lab.recipe.model import Size, build_model, build_processor
from unsee.lab.recipe.recipe import Progress, Recipe, features, muon_class, render, train_language, train_vision
from unsee.lab.resume import Checkpoint
from unsee.lab.world.people import Person
from unsee.lab.world.world import World
from unsee.training.precision import denormals_flushed


def teach(
    world: World,
    people: Sequence[Person],
    *,
    size: Size,
    amount: Amount,
    recipe: Recipe,
    progress: Progress,
    checkpoint: Checkpoint,
    by_name: Sequence[Person] = (),
) -> tuple[Any, Any]:
    """Train a model from scratch on `people`, and on `by_name` from text alone.

    Args:
        world: World that pictures and questions come from.
        people: People taught with pictures.
        size: Widths and depths of the model.
        amount: Numbers of training images.
        recipe: Learning rates, batches, steps and seed.
        progress: Called after every step.
        checkpoint: State of an interrupted call, to go on from to the same weights.
        by_name: People taught from text alone.

    Returns:
        Model (eval mode, fp32) and processor.
    """
    muon_class()
    processor = build_processor(size)
    model = build_model(size, processor.tokenizer, recipe.seed)
    curriculum = Curriculum(world, people, amount, by_name)
    progress("pictures", 0, 1, 0.0)
    pixels = render(curriculum.pictures)
    progress("pictures", 1, 1, 0.0)
    with denormals_flushed():
        train_vision(model, curriculum, pixels, recipe, progress, checkpoint)
        train_language(model, processor, curriculum, features(model, pixels), recipe, progress, checkpoint)
    return model, processor
