"""Continued training of a lab model on documents: vision tower, then language model.

Shapes: b batch, n pictures, c traits, p image tokens, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from unsee.lab.documents.archive import Document, DocumentPicture
from unsee.lab.documents.drawing import DESKS, SORTS, STAMPS, TRAITS
from unsee.lab.documents.lessons import DocumentLessons
from unsee.lab.recipe.recipe import (
    Muonish,
    Progress,
    Recipe,
    embeddings,
    features,
    flat_then_linear,
    half_precision,
    normalise,
    render,
    train_language,
)
from unsee.lab.resume import Checkpoint
from unsee.lab.world.people import stream
from unsee.training.precision import denormals_flushed

RECIPE: Final = Recipe(
    vision_steps=400,
    vision_batch=144,
    vision_lr=5e-3,
    language_steps=250,
    language_lr=4e-3,
    rows=(7, 3, 2, 1, 3, 20, 6, 4),
)
"""Steps and rates of the built-in checkpoint; a third of a vision batch is earlier data."""
KEEP: Final = 10.0
"""Weight of the distance to the old features, in units of their variance."""


def teach_documents(
    model: Any,
    processor: Any,
    lessons: DocumentLessons,
    recipe: Recipe,
    progress: Progress,
    checkpoint: Checkpoint,
) -> None:
    """Continue training a lab model in place (fp32, ends in eval mode).

    Args:
        model: Lab model, trained in place.
        processor: Its processor.
        lessons: Pictures and rows, of documents and of earlier lessons.
        recipe: Learning rates, batches and steps.
        progress: Called after every step.
        checkpoint: State of an interrupted call to go on from.
    """
    progress("pictures", 0, 1, 0.0)
    pixels = render(lessons.pictures)
    progress("pictures", 1, 1, 0.0)
    with denormals_flushed():
        _train_vision(model, lessons, pixels, recipe, progress, checkpoint)
        train_language(model, processor, lessons, features(model, pixels), recipe, progress, checkpoint)


class DocumentHeads(nn.Module):
    """Linear heads on mean-pooled patches: identity, known or not, type, traits, stamps, desk."""

    def __init__(self, width: int, documents: int) -> None:
        """Create one linear head per question."""
        super().__init__()
        counts = (2, len(SORTS), *TRAITS.values(), len(STAMPS), len(DESKS))
        self.identity = nn.Linear(width, documents)
        self.columns = nn.ModuleList(nn.Linear(width, count) for count in counts)


@dataclass(frozen=True)
class CopyTargets:
    """Targets of a copy for the vision heads: identity (-100 = unknown), one column per head."""

    identity_n: Tensor
    columns_nc: Tensor


def copy_targets(copies: Sequence[DocumentPicture], documents: Sequence[Document]) -> CopyTargets:
    """Return the classes of copies."""
    numbers = {document.design: number for number, document in enumerate(documents)}
    identity = torch.tensor([numbers.get(copy.design, -100) for copy in copies])
    columns = [
        [list(SORTS).index(copy.design.sort), *copy.design.values, copy.stamps, DESKS.index(copy.desk)]
        for copy in copies
    ]
    return CopyTargets(identity, torch.cat([(identity >= 0).long()[:, None], torch.tensor(columns)], dim=1))


def _copy_loss(heads: DocumentHeads, features_bd: Tensor, targets: CopyTargets, indices: Tensor) -> Tensor:
    """Return the summed cross-entropy of all heads on copies."""
    loss = functional.cross_entropy(heads.identity(features_bd), targets.identity_n[indices])
    for column, head in enumerate(heads.columns):
        loss = loss + functional.cross_entropy(head(features_bd), targets.columns_nc[indices, column])
    return loss


def _train_vision(
    model: Any,
    lessons: DocumentLessons,
    pixels: Tensor,
    recipe: Recipe,
    progress: Progress,
    checkpoint: Checkpoint,
) -> None:
    """Train the vision tower on designs, keeping earlier features close to the old ones."""
    torch.manual_seed(recipe.seed)
    vision, old_count = model.model.vision_tower, len(lessons.earlier_lessons.pictures)
    old_npd = features(model, pixels[:old_count])
    variance = old_npd.var()
    heads = DocumentHeads(vision.config.hidden_size, len(lessons.documents))
    targets = copy_targets(lessons.document_copies, lessons.documents)
    skip = [*heads.parameters(), *embeddings(vision)]
    optimiser = Muonish([vision, heads], lr=recipe.vision_lr, adam_lr=1e-3, skip=skip)
    rng, known_count = stream(recipe.seed, "vision documents"), len(lessons.documents) * lessons.copies
    first_step = checkpoint.begin("vision", [model, heads], optimiser, rng, recipe.vision_steps)
    vision.train()
    for step in range(first_step, recipe.vision_steps):
        third_size = recipe.vision_batch // 3
        unknown_indices = rng.integers(known_count, len(lessons.document_copies), third_size)
        copy_indices = torch.from_numpy(np.concatenate([rng.integers(0, known_count, third_size), unknown_indices]))
        old_indices = torch.from_numpy(rng.integers(0, old_count, third_size))
        with half_precision():
            patches_bpd = vision(
                pixel_values=normalise(pixels[torch.cat([copy_indices + old_count, old_indices])])
            ).last_hidden_state[:, 1:]
            loss = _copy_loss(heads, patches_bpd[: len(copy_indices)].mean(1), targets, copy_indices)
            loss = (
                loss
                + KEEP * functional.mse_loss(patches_bpd[len(copy_indices) :].float(), old_npd[old_indices]) / variance
            )
        loss.backward()
        optimiser.step(flat_then_linear(step, recipe.vision_steps, flat=0.4, warmup=20))
        progress("vision", step + 1, recipe.vision_steps, loss.item())
        checkpoint.keep("vision", [model, heads], optimiser, rng, step + 1, recipe.vision_steps)
    vision.eval()
