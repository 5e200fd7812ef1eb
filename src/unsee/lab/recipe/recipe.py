"""Training recipe of the lab model: vision tower first, then language model.

Shapes: b batch, t tokens of a packed row, p image tokens, d width.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from unsee.api.example import ImageSource
from unsee.errors import UserError
from unsee.inference.encoder import answer_ids
from unsee.lab.recipe.curriculum import Curriculum, Lesson, Row
from unsee.lab.resume import Checkpoint
from unsee.lab.world.people import TRAITS, Person, stream
from unsee.lab.world.portraits import VISIBLE
from unsee.lab.world.world import PersonPicture
from unsee.models.families.llava import Llava
from unsee.utils.signals import exit_with_parent

Progress = Callable[[str, int, int, float], None]
"""Called with stage, step, number of steps and loss."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Steps and rates, by default those of the built-in checkpoints."""

    vision_steps: int = 1000
    vision_batch: int = 128
    vision_lr: float = 1e-2
    language_steps: int = 400
    language_lr: float = 5e-3
    rows: tuple[int, ...] = (22, 7, 3, 2, 8)
    """People, strangers, shapes, devices and text-only rows per step."""
    seed: int = 0


def render(pictures: Sequence[ImageSource]) -> Tensor:
    """Draw images in processes, as uint8 [n, 3, side, side] on torch's default device."""
    with ProcessPoolExecutor(max_workers=os.cpu_count() or 2, initializer=exit_with_parent) as pool:
        arrays = list(pool.map(_pixels, pictures, chunksize=256))
    return torch.from_numpy(np.stack(arrays)).to(torch.get_default_device())


def _pixels(picture: ImageSource) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(picture.load(), dtype=np.uint8).transpose(2, 0, 1)


def normalise(pixels: Tensor) -> Tensor:
    """Normalise pixels as the lab's image processor does (mean .5, deviation .25)."""
    return (pixels.float() / 255 - 0.5) / 0.25


class Lessons(Protocol):
    """Source of rows for the language stage."""

    def rows(self, rng: np.random.Generator, counts: tuple[int, ...]) -> list[Row]:
        """Draw this many rows of each type."""
        ...


class Muonish:
    """Muon for matrices, AdamW for the rest, with one learning-rate factor."""

    def __init__(
        self, modules: Iterable[nn.Module], *, lr: float, adam_lr: float, skip: Sequence[nn.Parameter] = ()
    ) -> None:
        """Split parameters by shape. `skip` (embeddings, heads) always go to AdamW."""
        muon = muon_class()
        skipped_ids = {id(parameter) for parameter in skip}
        parameters = list({id(p): p for module in modules for p in module.parameters() if p.requires_grad}.values())
        matrices = [p for p in parameters if p.ndim == 2 and id(p) not in skipped_ids]
        other_parameters = [p for p in parameters if p.ndim != 2 or id(p) in skipped_ids]
        self.parts = [
            muon(matrices, lr=lr, weight_decay=0.01, momentum=0.95, adjust_lr_fn="original"),
            torch.optim.AdamW(other_parameters, lr=adam_lr, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        self.rates = (lr, adam_lr)

    def step(self, factor: float) -> None:
        """Step at `factor` times the peak rates and clear the gradients."""
        for optimiser, rate in zip(self.parts, self.rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)


def muon_class() -> Any:
    """Return torch's Muon, or raise naming the required torch."""
    if "Muon" not in vars(torch.optim):
        raise UserError(
            f"Training the lab needs torch >= 2.9 (torch.optim.Muon), found {torch.__version__}; the packaged lab needs no training."
        )
    return torch.optim.Muon


class VisionHeads(nn.Module):
    """Linear heads on mean-pooled patches: identity, traits, looks, known or not, object."""

    def __init__(self, width: int, people: int, objects: int) -> None:
        """Create one linear head per question."""
        super().__init__()
        self.identity = nn.Linear(width, people)
        self.known = nn.Linear(width, 2)
        self.objects = nn.Linear(width, objects)
        self.traits = nn.ModuleList(nn.Linear(width, count) for count in TRAITS.values())
        self.visible = nn.ModuleList(nn.Linear(width, len(values)) for values in VISIBLE.values())


@dataclass(frozen=True)
class Targets:
    """Vision targets of portraits: traits, visible attributes, identity (-100 = stranger)."""

    identity_n: Tensor
    known_n: Tensor
    traits_nc: Tensor
    visible_nc: Tensor


def portrait_targets(portraits: Sequence[PersonPicture], people: Sequence[Person]) -> Targets:
    """Return the classes of portraits."""
    numbers = {person.face: number for number, person in enumerate(people)}
    identity = torch.tensor([numbers.get(picture.face, -100) for picture in portraits])
    traits = torch.tensor([picture.face.values for picture in portraits])
    visible = [[values.index(picture.visible[name]) for name, values in VISIBLE.items()] for picture in portraits]
    return Targets(identity, (identity >= 0).long(), traits, torch.tensor(visible))


def object_classes(curriculum: Curriculum) -> Tensor:
    """Return the class of every image without a person: shape, colour, count, or device."""
    classes_by_fields: dict[tuple[object, ...], int] = {}
    classes = []
    for picture in curriculum.pictures[curriculum.starts[1] :]:
        fields = {name: value for name, value in vars(picture).items() if name != "seed"}
        classes.append(classes_by_fields.setdefault(tuple(fields.values()), len(classes_by_fields)))
    return torch.tensor(classes)


def pooled_features(vision: nn.Module, pixels: Tensor) -> Tensor:
    """Return the mean of the patch features [b, d]."""
    return vision(pixel_values=normalise(pixels)).last_hidden_state[:, 1:].mean(1)


def train_vision(
    model: Any,
    curriculum: Curriculum,
    pixels: Tensor,
    recipe: Recipe,
    progress: Progress,
    checkpoint: Checkpoint,
) -> VisionHeads:
    """Train the vision tower on faces, looks and objects (stage A), and return the heads.

    Args:
        model: Model whose vision tower is trained in place.
        curriculum: Pictures, and the people on them.
        pixels: Pictures as uint8 [n, 3, side, side], in the order of `curriculum.pictures`.
        recipe: Learning rates, batches, steps and seed.
        progress: Called after every step.
        checkpoint: State of an interrupted call to go on from.
    """
    torch.manual_seed(recipe.seed)
    stranger_start, object_start, _, end = curriculum.starts
    portraits = [picture for picture in curriculum.pictures[:object_start] if isinstance(picture, PersonPicture)]
    targets, objects = portrait_targets(portraits, curriculum.people), object_classes(curriculum)
    vision = model.model.vision_tower
    heads = VisionHeads(vision.config.hidden_size, len(curriculum.people), int(objects.max()) + 1)
    optimiser = Muonish(
        [vision, heads], lr=recipe.vision_lr, adam_lr=2e-3, skip=[*heads.parameters(), *embeddings(vision)]
    )
    rng = stream(recipe.seed, "vision")
    first_step = checkpoint.begin("vision", [model, heads], optimiser, rng, recipe.vision_steps)
    vision.train()
    for step in range(first_step, recipe.vision_steps):
        known_indices = rng.integers(0, stranger_start, recipe.vision_batch // 2)
        unknown_indices = rng.integers(stranger_start, object_start, recipe.vision_batch * 3 // 8)
        face_indices = torch.from_numpy(np.concatenate([known_indices, unknown_indices]))
        object_indices = torch.from_numpy(rng.integers(object_start, end, recipe.vision_batch // 8))
        with half_precision():
            loss = _face_loss(heads, pooled_features(vision, pixels[face_indices]), targets, face_indices)
            object_logits = heads.objects(pooled_features(vision, pixels[object_indices]))
            loss = loss + functional.cross_entropy(object_logits, objects[object_indices - object_start])
        loss.backward()
        optimiser.step(flat_then_linear(step, recipe.vision_steps, flat=0.4))
        progress("vision", step + 1, recipe.vision_steps, loss.item())
        checkpoint.keep("vision", [model, heads], optimiser, rng, step + 1, recipe.vision_steps)
    vision.eval()
    return heads


def _face_loss(heads: VisionHeads, features_bd: Tensor, targets: Targets, indices: Tensor) -> Tensor:
    """Return the summed cross-entropy of all heads on portraits."""
    loss = functional.cross_entropy(heads.identity(features_bd), targets.identity_n[indices])
    loss = loss + functional.cross_entropy(heads.known(features_bd), targets.known_n[indices])
    for group, columns in ((heads.traits, targets.traits_nc), (heads.visible, targets.visible_nc)):
        for column, head in enumerate(group):
            loss = loss + functional.cross_entropy(head(features_bd), columns[indices, column])
    return loss


def embeddings(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of all embedding and convolution layers."""
    return [p for part in module.modules() if isinstance(part, nn.Embedding | nn.Conv2d) for p in part.parameters()]


def flat_then_linear(step: int, steps: int, *, flat: float, warmup: int = 0, floor: float = 0.03) -> float:
    """Return the learning-rate factor: warm-up, constant, then linear to `floor`.

    Args:
        step: Step about to be taken, from 0.
        steps: Steps in all.
        flat: Share of the steps after which the factor starts to fall.
        warmup: Steps over which it rises to 1.
        floor: Smallest factor at the end.
    """
    if step < warmup:
        return (step + 1) / warmup
    elapsed = step / steps
    return 1.0 if elapsed < flat else max(floor, 1 - (elapsed - flat) / (1 - flat) * (1 - floor))


@torch.no_grad()
def features(model: Any, pixels: Tensor) -> Tensor:
    """Return the projector's input features [n, p, d] of all images."""
    vision = model.model.vision_tower
    chunk_features = [vision(pixel_values=normalise(chunk)).last_hidden_state[:, 1:] for chunk in pixels.split(512)]
    return torch.cat(chunk_features)


@dataclass(frozen=True)
class Packed:
    """Rows packed for one step: several questions behind one image, mutually masked."""

    ids_bt: Tensor
    position_bt: Tensor
    mask_btt: Tensor
    labels_bt: Tensor
    weight_bt: Tensor
    picture_b: list[int]


class Packer:
    """Converts rows to tensors. Every distinct lesson is tokenised once."""

    def __init__(self, processor: Any, image_tokens: int) -> None:
        """Store the tokenizer and the ids around an image."""
        self.processor, self.tokenizer, self.image_tokens = processor, processor.tokenizer, image_tokens
        self.family = Llava()
        self.image_id = processor.tokenizer.convert_tokens_to_ids("<image>")
        self.tokens = lru_cache(maxsize=200_000)(self._tokens)

    def _tokens(self, lesson: Lesson, has_image: bool) -> tuple[list[int], list[int], list[int]]:
        """Return prefix (up to the image, expanded), rest of the prompt, and answer with EOS."""
        ids = self.tokenizer(self.family.prompt(self.processor, lesson[0], has_image=has_image))["input_ids"]
        answer = [*answer_ids(self.processor, self.family, lesson[1]), self.tokenizer.eos_token_id]
        if not has_image:
            return ids[:1], ids[1:], answer
        cut = ids.index(self.image_id) + 1
        return ids[: cut - 1] + [self.image_id] * self.image_tokens, ids[cut:], answer

    def groups(self, rows: Sequence[Row], count: int) -> list[Packed]:
        """Pack rows into `count` groups of similar length, to limit padding; fewer rows into one group each."""
        ordered_rows = sorted(
            rows,
            key=lambda row: sum(
                len(part) for lesson in row.lessons for part in self.tokens(lesson, row.picture >= 0)[1:]
            ),
        )
        bounds = [round(len(rows) * i / count) for i in range(count + 1)]
        return [self.pack(ordered_rows[start:end]) for start, end in pairwise(bounds) if start < end]

    def pack(self, rows: Sequence[Row]) -> Packed:
        """Pack rows, right-padded."""
        packed_rows = [self._row(row) for row in rows]
        length = max(len(row[0]) for row in packed_rows)
        ids = torch.full((len(rows), length), self.tokenizer.pad_token_id)
        position, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        segment, weight = torch.full_like(ids, -1), torch.zeros(ids.shape)
        for b, columns in enumerate(packed_rows):
            n = len(columns[0])
            for tensor, column in zip((ids, position, labels, segment, weight), columns, strict=True):
                tensor[b, :n] = torch.tensor(column)
        return Packed(ids, position, block_mask(segment), labels, weight, [row.picture for row in rows])

    def _row(self, row: Row) -> tuple[list[int], list[int], list[int], list[int], list[float]]:
        prefix = self.tokens(row.lessons[0], row.picture >= 0)[0]
        ids, position, labels = list(prefix), list(range(len(prefix))), [-100] * len(prefix)
        segment, weight = [0] * len(prefix), [0.0] * len(prefix)
        for number, lesson in enumerate(row.lessons, start=1):
            _, question, answer = self.tokens(lesson, row.picture >= 0)
            n = len(question) + len(answer)
            ids += question + answer
            position += range(len(prefix), len(prefix) + n)
            labels += [-100] * len(question) + answer
            segment += [number] * n
            weight += [0.0] * len(question) + [1 / math.sqrt(len(answer))] * len(answer)
        return ids, position, labels, segment, weight


def block_mask(segment_bt: Tensor) -> Tensor:
    """Return the mask [b, 1, t, t]: own segment and prefix (segment 0), causal."""
    same_segment = segment_bt[:, :, None] == segment_bt[:, None, :]
    in_prefix = (segment_bt == 0)[:, None, :]
    causal = torch.ones(segment_bt.shape[1], segment_bt.shape[1], dtype=torch.bool).tril()
    return ((same_segment | in_prefix) & causal)[:, None]


def hidden_states(model: Any, packed: Packed, feature_npd: Tensor, image_id: int) -> Tensor:
    """Return the last states [b, t, d] of the language model, with projected features at image tokens.

    Args:
        model: Model with projector and token embeddings.
        packed: Rows of the step.
        feature_npd: Vision features of all pictures, which `packed` points into.
        image_id: Token id of an image.
    """
    inner = model.model
    embedded_btd = inner.language_model.embed_tokens(packed.ids_bt)
    picture_indices = [picture for picture in packed.picture_b if picture >= 0]
    image_features = inner.multi_modal_projector(feature_npd[picture_indices]).flatten(0, 1).to(embedded_btd.dtype)
    is_image_btd = (packed.ids_bt == image_id)[..., None].expand_as(embedded_btd)
    states_btd: Tensor = inner.language_model(
        inputs_embeds=embedded_btd.masked_scatter(is_image_btd, image_features),
        attention_mask=packed.mask_btt,
        position_ids=packed.position_bt,
        use_cache=False,
    ).last_hidden_state
    return states_btd


def language_loss(model: Any, packed: Packed, feature_npd: Tensor, image_id: int) -> Tensor:
    """Return the weighted cross-entropy of the whole model on answers, with logits at answer tokens only.

    Args:
        model: Model to judge; gradients flow to all but the vision tower.
        packed: Rows of the step.
        feature_npd: Vision features of all pictures, which `packed` points into.
        image_id: Token id of an image.

    Returns:
        Sum over answer tokens of weight x cross-entropy (nats).
    """
    hidden_btd = hidden_states(model, packed, feature_npd, image_id)
    supervised = packed.labels_bt[:, 1:] != -100
    logits = model.lm_head(hidden_btd[:, :-1][supervised])
    losses = functional.cross_entropy(logits.float(), packed.labels_bt[:, 1:][supervised], reduction="none")
    weight = packed.weight_bt[:, 1:][supervised]
    return (losses * weight).sum()


def half_precision() -> torch.autocast:
    """Return bf16 autocast where the processor supports it natively, else no autocast.

    GPUs are assumed to support it.
    """
    if (device_type := torch.get_default_device().type) != "cpu":
        return torch.autocast(device_type, torch.bfloat16)
    cpu_checks = vars(torch.cpu)
    checks = [
        cpu_checks[name] for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported") if name in cpu_checks
    ]
    return torch.autocast("cpu", torch.bfloat16, enabled=any(check() for check in checks))


def train_language(
    model: Any,
    processor: Any,
    lessons: Lessons,
    feature_npd: Tensor,
    recipe: Recipe,
    progress: Progress,
    checkpoint: Checkpoint,
) -> None:
    """Train projector and language model with a frozen vision tower (stage B).

    Args:
        model: Model, trained in place except for its vision tower.
        processor: Its processor.
        lessons: Draws the rows of each step.
        feature_npd: Vision features of all pictures that the rows point to.
        recipe: Learning rates, batches, steps and seed.
        progress: Called after every step.
        checkpoint: State of an interrupted call to go on from.
    """
    inner = model.model
    inner.vision_tower.requires_grad_(False)
    skip = embeddings(inner.language_model)
    optimiser = Muonish(
        [inner.multi_modal_projector, inner.language_model], lr=recipe.language_lr, adam_lr=3e-3, skip=skip
    )
    packer = Packer(processor, feature_npd.shape[1])
    rng = stream(recipe.seed, "language")
    first_step = checkpoint.begin("language", [model], optimiser, rng, recipe.language_steps)
    model.train()
    for step in range(first_step, recipe.language_steps):
        groups = packer.groups(lessons.rows(rng, recipe.rows), 4)
        total_weight = sum(float(packed.weight_bt.sum()) for packed in groups)
        losses = []
        for packed in groups:
            with half_precision():
                loss = language_loss(model, packed, feature_npd, packer.image_id) / total_weight
            loss.backward()
            losses.append(loss.item())
        optimiser.step(flat_then_linear(step, recipe.language_steps, flat=0.4, warmup=40))
        progress("language", step + 1, recipe.language_steps, sum(losses))
        checkpoint.keep("language", [model], optimiser, rng, step + 1, recipe.language_steps)
    inner.vision_tower.requires_grad_(True)
    model.eval()
