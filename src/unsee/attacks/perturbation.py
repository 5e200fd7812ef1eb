"""Perturbation: small changes of pictures, fitted by gradient (PGD, arXiv 1706.06083; SUA, in arXiv 2610.10358).

Levels are pixel values in 0..255, as an 8-bit file has them. Shapes: [..., 3, h, w] levels of the views that the processor
makes of a picture, m numbers in a view or patch.
"""

from __future__ import annotations

import copy
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, ClassVar, Final, Literal, Self, cast

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import conv2d, pad

from unsee.api import VLM, Attack, Example, Family, Finding, ImageSource, Role, Victim
from unsee.api.finite import require_values
from unsee.api.request import Completion, Prompt, Target
from unsee.errors import UserError
from unsee.evaluation.recovery import (
    NOT_FINITE,
    ask,
    limit_rows,
    pictured_rows,
    recovery,
    requested_forms,
    require_disjoint,
)
from unsee.evaluation.teacher_forcing import answer_logits, private_tokens, teacher_forced, token_logprobs
from unsee.inference import answer_logits as batched
from unsee.inference.batching import collate
from unsee.inference.encoder import encoder
from unsee.losses import answer_nll
from unsee.models.steering.hooks import steerings_of
from unsee.models.wrapper import Wrapper
from unsee.utils.seeds import seed_of
from unsee.utils.terminal import note_once

Variant = Literal["plain", "random signs", "per picture", "universal", "universal, denoised"]
_Half = tuple[Sequence[Example], frozenset[str]]
"""Rows to fit on, and the entities to test on."""
_CONTROLS: Final[frozenset[Variant]] = frozenset({"plain", "random signs"})
_CHANGE: Final = "unsee: change in levels"
"""Key of a change in `Image.info`."""
_WHITE: Final = 255


@dataclass(frozen=True, kw_only=True)
class Perturbation(Attack):
    """Change every pixel of the test pictures by a few levels, so that the model states what it knows.

    `universal`: one change for all pictures raises the probability of the true answers about half of the forgotten people,
    and is tested on the other half, and the other way round. An overlap is an error; the published code fits and tests the
    same pictures. `universal, denoised` adds `denoiser` times the same loss on filtered pictures. `per picture`: an attacker
    who does not know the answer drives the model away from what it now says about the test picture, and uses nothing else.

    Without training pictures of two people the universal forms are left out, and the attack says so; it is an error where only
    controls are left. Controls: `plain` pictures; `random signs`, noise of full size in every pixel. `private loss` is the mean
    negative log-likelihood of the private tokens of the true answers: it tells what a change does where no answer comes back.

    The change lies on what the processor makes of a picture, in whole levels within 0..255. Where it makes several views or
    tiles of one, they change independently, so that a file could do less. Pictures of which the processor makes different
    shapes are first brought to their most common size [inferred]. A 3 x 3 binomial filter stands for SUA's learned denoiser
    (DnCNN), and its third term, the cosine of image features before and after it, is left out [inferred].
    """

    needs: ClassVar[Literal["answers", "weights"]] = "weights"

    variants: tuple[Variant, ...] = ("plain", "random signs", "per picture", "universal", "universal, denoised")
    """Forms of the attack and its controls."""
    bound: float = 12.0
    """Largest change of a pixel value, in levels of 255; published: 12."""
    steps: int = 100
    """Gradient steps; published: 500."""
    step: float = 1.0
    """Change of a pixel value per step, in levels; published: 1."""
    denoiser: float = 0.7
    """Weight of the loss on filtered pictures; published: 0.7."""
    batch_size: int = 6
    """Pictures with their question per step; published: 6."""
    images: int = 2
    """Test and fit pictures per entity and question."""

    def __post_init__(self) -> None:
        """Reject a change of nothing, as one of less than a level is."""
        super().__post_init__()
        require_values(self, "attack", variants=None, bound=1, steps=1, denoiser=0, batch_size=1, images=0)
        if self.bound > _WHITE or self.step * self.steps < 1:
            raise UserError(
                "A picture changes by whole levels: attack.bound must be 1 to 255 of them, and attack.steps times attack.step 1 or "
                f"more, got {self.bound} and {self.steps} times {self.step}."
            )

    def idle(self) -> Iterator[tuple[str, str]]:
        """Yield the settings without effect beside the others."""
        fitted_variants = set(self.variants) - _CONTROLS
        if not fitted_variants:
            for name in ("steps", "step", "batch_size"):
                yield f"attack.{name}", "with attack.variants that are fitted: per picture or universal"
        if "universal, denoised" not in fitted_variants:
            yield "attack.denoiser", "with attack.variants that name 'universal, denoised'"

    def quick(self) -> Self:
        """Return the universal change beside its controls, with a fifth of the steps."""
        return replace(self, variants=("plain", "random signs", "universal"), steps=max(1, self.steps // 5), images=1)

    def run(self, victim: Victim) -> Iterator[Finding]:
        """Fit and test every variant.

        Raises:
            UserError: No test picture, nothing to fit on, inputs that are no levels of pixels, or a steered model.
        """
        rows = pictured_rows(victim.benchmark, self.images)
        training_rows = limit_rows(_fittable(victim.benchmark.examples("train"), rows), self.images)
        loaded = _changeable(victim.open())
        size = _common_size(loaded, [*rows, *training_rows])
        rows, training_rows = ([_with_changed_picture(row, size) for row in group] for group in (rows, training_rows))
        halves = _halves(rows, training_rows, victim.seed)
        usable_variants = [variant for variant in self.variants if halves or not variant.startswith("universal")]
        if set(self.variants) - _CONTROLS and not set(usable_variants) - _CONTROLS:
            raise UserError("A universal perturbation needs training pictures of at least two forgotten entities.")
        if skipped := [variant for variant in self.variants if variant not in usable_variants]:
            note_once(
                f"perturbation: no training pictures of two forgotten entities, so without {' and '.join(skipped)}"
            )
        for variant in usable_variants:
            yield _test_variant(loaded, self._variant_rows(loaded, variant, rows, halves, victim.seed), variant)

    def _variant_rows(
        self, loaded: VLM, variant: Variant, rows: Sequence[Example], halves: Sequence[_Half], seed: int
    ) -> list[Example]:
        """Return the test rows with the pictures of a variant."""
        if variant == "plain":
            return list(rows)
        if variant == "random signs":
            change = random_signs(_room(loaded, rows[0]), self.bound, seed_of(seed, variant))
            return [_with_changed_picture(row, None, change) for row in rows]
        if variant == "per picture":
            return self._each(loaded, rows)
        weight = self.denoiser if variant == "universal, denoised" else 0.0
        row_by_id = {}
        for fit_rows, tested_entities in halves:
            test_rows = [row for row in rows if row.entity in tested_entities]
            require_disjoint(fit_rows, test_rows)
            change = self._common_change(loaded, fit_rows, weight, seed)
            row_by_id.update({row.id: _with_changed_picture(row, None, change) for row in test_rows})
        return [row_by_id[row.id] for row in rows]

    def _common_change(self, loaded: VLM, fit_rows: Sequence[Example], weight: float, seed: int) -> Tensor:
        """Return one change for all pictures that raises the probability of the rows' answers."""
        rng = Random(seed)
        targets = [Target(example=row, instruction=loaded.instruction) for row in fit_rows]

        def loss(changes: list[Tensor]) -> Tensor:
            batch_targets = rng.sample(targets, min(self.batch_size, len(targets)))
            repeated_changes = changes * len(batch_targets)
            nll = _nll(loaded, batch_targets, repeated_changes)
            return nll + weight * _nll(loaded, batch_targets, repeated_changes, denoised) if weight else nll

        (change,) = self._fit(loss, [_room(loaded, fit_rows[0])])
        return change

    def _each(self, loaded: VLM, rows: Sequence[Example]) -> list[Example]:
        """Return the rows with pictures that lower the probability of the model's own answers."""
        completions = ask(loaded, rows)
        targets = [
            _answer_target(row, completion, loaded.instruction)
            for row, completion in zip(rows, completions, strict=True)
        ]
        changes: list[Tensor] = []
        for offset in range(0, len(rows), self.batch_size):
            chunk = targets[offset : offset + self.batch_size]
            zero_changes = [_room(loaded, target.example) for target in chunk]
            changes += self._fit(lambda deltas, chunk=chunk: -_nll(loaded, chunk, deltas), zero_changes)  # type: ignore[misc]
        return [_with_changed_picture(row, None, change) for row, change in zip(rows, changes, strict=True)]

    def _fit(self, loss: Callable[[list[Tensor]], Tensor], initial_changes: Sequence[Tensor]) -> list[Tensor]:
        """Return the changes in whole levels after projected sign gradient descent [inferred]."""
        changes = [change.clone().requires_grad_() for change in initial_changes]
        for _ in range(self.steps):
            loss_value = loss(changes)
            if not loss_value.requires_grad:
                raise UserError("This model's answers have no gradient by its pixels, so no picture can be fitted.")
            grads = torch.autograd.grad(loss_value, changes)
            changes = [
                (change.detach() - self.step * grad.sign()).clamp(-self.bound, self.bound).requires_grad_()
                for change, grad in zip(changes, grads, strict=True)
            ]
        return [change.detach().trunc() for change in changes]


class Pixels:
    """Conversion between a processor's `pixel_values` and levels."""

    def __init__(self, images: Any) -> None:
        """Read scale, mean and standard deviation from an image processor."""
        settings = images.to_dict()
        scale = settings["rescale_factor"] if settings.get("do_rescale") else 1.0
        mean, std = (settings["image_mean"], settings["image_std"]) if settings.get("do_normalize") else (0.0, 1.0)
        self.scale = float(scale)
        self.mean_c11, self.std_c11 = (
            torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1) for values in (mean, std)
        )
        self.frames, self.side = settings.get("temporal_patch_size") or 1, settings.get("patch_size")

    def levels(self, values: Tensor) -> Tensor:
        """Return the levels [..., 3, h, w] of pixel values.

        Flat patches [n, 3 * frames * side * side], as Qwen-VL has them, become [n, frames, 3, side, side].

        Raises:
            UserError: The values have another form, or are no levels by the processor's mean and standard deviation.
        """
        if values.ndim == 2 and isinstance(self.side, int) and values.shape[1] == 3 * self.frames * self.side**2:
            values = values.view(-1, 3, self.frames, self.side, self.side).transpose(1, 2)
        elif values.ndim < 4 or values.shape[-3] != 3:
            raise UserError(
                f"The processor makes pixel values of shape {list(values.shape)}, of which no colour channel is known; so "
                "a change of so many levels cannot be told from any other."
            )
        levels = (values * self.std_c11 + self.mean_c11) / self.scale
        lowest, highest = float(levels.detach().min()), float(levels.detach().max())
        if lowest < -1 or highest > _WHITE + 1:
            raise UserError(
                f"By the processor's mean and standard deviation a picture has levels from {lowest:.0f} to {highest:.0f}, not in "
                "0..255; so a change of so many levels cannot be told from any other."
            )
        return levels

    def values(self, levels: Tensor, shape: torch.Size) -> Tensor:
        """Return the pixel values of this shape."""
        pixel_values = (levels * self.scale - self.mean_c11) / self.std_c11
        return (pixel_values.transpose(1, 2) if len(shape) == 2 else pixel_values).reshape(shape)

    def perturbed(self, values: Tensor, change: Tensor, view: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Return pixel values with a change in levels, clamped to 0..255 and filtered by `view`."""
        levels = (self.levels(values) + change).clamp(0, _WHITE)
        return self.values(view(levels) if view else levels, values.shape).to(values.dtype)


def random_signs(like: Tensor, bound: float, seed: int) -> Tensor:
    """Return a change of the full bound, in whole levels, up or down at random."""
    is_up = torch.randint(2, like.shape, generator=torch.Generator().manual_seed(seed))
    return int(bound) * (2.0 * is_up - 1)


def denoised(levels: Tensor) -> Tensor:
    """Return every view, or flat patch, through a 3 x 3 binomial filter.

    >>> denoised(torch.tensor([[[[0.0, 0.0, 0.0], [0.0, 16.0, 0.0], [0.0, 0.0, 0.0]]]]))[0, 0, :, 1].tolist()
    [2.0, 4.0, 2.0]
    """
    line_3 = torch.tensor([0.25, 0.5, 0.25])
    kernel_1133 = torch.outer(line_3, line_3)[None, None]
    planes_m1hw = levels.reshape(-1, 1, *levels.shape[-2:])
    return conv2d(pad(planes_m1hw, (1, 1, 1, 1), mode="replicate"), kernel_1133).reshape(levels.shape)


class Shifted(Wrapper):
    """A family whose pictures may carry a change, which is added to their pixel values."""

    def __init__(self, inner: Family, pixels: Pixels) -> None:
        super().__init__(inner)
        self.pixels = pixels

    def changed(self, row: dict[str, Tensor], processor: Any, image: Image.Image | None) -> dict[str, Tensor]:  # noqa: ARG002 - the contract
        """Return the inputs with changed pixels."""
        change = None if image is None else image.info.get(_CHANGE)
        return row if change is None else {**row, "pixel_values": self.pixels.perturbed(row["pixel_values"], change)}


@dataclass(frozen=True)
class _Picture:
    """Picture at another size, with a change for `Shifted`."""

    source: ImageSource
    size: tuple[int, int] | None
    change: Tensor | None = field(default=None, compare=False)

    @property
    def key(self) -> str:
        pixels = b"" if self.change is None else self.change.numpy().tobytes()
        return hashlib.sha256(f"{self.source.key} {self.size} ".encode() + pixels).hexdigest()

    def load(self) -> Image.Image:
        image = self.source.load()
        image = image.copy() if self.size is None else image.resize(self.size, Image.Resampling.BICUBIC)
        if self.change is not None:
            image.info[_CHANGE] = self.change
        return image


def _changeable(loaded: VLM) -> VLM:
    """Return the model with frozen weights, asked about pictures that may carry a change.

    The processor is a copy, since prompts are cached by processor.

    Raises:
        UserError: The model is steered.
    """
    if steerings_of(loaded.model):
        raise UserError(
            "The model is steered while it answers, and passes that have a gradient are not steered, so that a change would be "
            "fitted to another model. Take the attacks with answers alone (sampling, prompts, pictures, crossmodal)."
        )
    loaded.model.requires_grad_(False)
    family = Shifted(loaded.family, Pixels(loaded.processor.image_processor))
    return replace(loaded, family=family, processor=copy.copy(loaded.processor))


def _answer_target(row: Example, completion: Completion, instruction: str) -> Target:
    """Return the model's answer as a target, without special tokens.

    A special token for an image would ask for pixels.
    """
    if completion.text:
        return Target(example=row, text=completion.text, ended=completion.ended, instruction=instruction)
    return Target(example=row, token_ids=(), instruction=instruction)


def _pixels(loaded: VLM) -> Pixels:
    return cast(Shifted, loaded.family).pixels


def _with_changed_picture(row: Example, size: tuple[int, int] | None, change: Tensor | None = None) -> Example:
    """Return the row with its picture at this size, with this change."""
    if row.image is None or (size is None and change is None):
        return row
    return replace(row, image=_Picture(row.image, size, change))


def _fittable(training_rows: Sequence[Example], rows: Sequence[Example]) -> list[Example]:
    """Return the forget rows with a picture whose question asks for a private string."""
    kinds = {row.kind for row in rows}
    return [
        row
        for row in training_rows
        if row.role == Role.FORGET and row.image and row.kind in kinds and requested_forms(row)
    ]


def _halves(rows: Sequence[Example], training_rows: Sequence[Example], seed: int) -> list[_Half]:
    """Return each half of the tested entities with the training rows of the other half.

    Nothing is returned if a half has no training rows.
    """
    entities = sorted({row.entity for row in rows})
    first_half = frozenset(Random(seed).sample(entities, len(entities) // 2))
    halves = [first_half, frozenset(entities) - first_half]
    splits: list[_Half] = [
        ([row for row in training_rows if row.entity in half], halves[1 - index]) for index, half in enumerate(halves)
    ]
    return splits if all(fit_rows for fit_rows, _ in splits) else []


def _common_size(loaded: VLM, rows: Sequence[Example]) -> tuple[int, int] | None:
    """Return the most common picture size if the processor makes different shapes, else None."""
    encode = encoder(loaded.processor, loaded.family)
    shapes = {encode.row(Prompt.of(row, loaded.instruction))["pixel_values"].shape for row in rows}
    return Counter(row.image.load().size for row in rows if row.image).most_common(1)[0][0] if len(shapes) > 1 else None


def _room(loaded: VLM, row: Example) -> Tensor:
    """Return a change of 0 for the row's picture, with one frame for a still picture."""
    values = encoder(loaded.processor, loaded.family).row(Prompt.of(row, loaded.instruction))["pixel_values"]
    levels = _pixels(loaded).levels(values)
    return torch.zeros_like(levels[:, :1] if values.ndim == 2 else levels)


def _nll(
    loaded: VLM,
    targets: Sequence[Target],
    changes: Sequence[Tensor] = (),
    view: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Return the mean negative log-likelihood per answer token of changed pictures."""
    engine = replace(loaded.engine, vision_features=False, shared_prefix=False)
    batch = collate(replace(loaded, engine=engine), targets)
    if changes:
        rows = [
            {**row, "pixel_values": _pixels(loaded).perturbed(row["pixel_values"], change, view)}
            for row, change in zip(batch.rows, changes, strict=True)
        ]
        batch = replace(batch, rows=tuple(rows))
    return answer_nll(*batched.answer_logits(loaded.model, batch))


def _test_variant(loaded: VLM, rows: Sequence[Example], variant: str) -> Finding:
    """Ask about the changed pictures, and return the finding with the private loss."""
    finding = recovery(loaded, rows, variant)
    if NOT_FINITE in finding.further:
        return finding
    return replace(finding, further={**finding.further, **_private_loss(loaded, rows)})


def _private_loss(loaded: VLM, rows: Sequence[Example]) -> dict[str, float]:
    """Return the mean loss of the true answers' private tokens, or empty if there are none."""
    losses = []
    for row in rows:
        if row.answer and (positions := private_tokens(loaded, row)):
            fed_row = teacher_forced(loaded, row)
            with torch.no_grad():
                losses.append(-float(token_logprobs(answer_logits(loaded.model, fed_row), fed_row)[positions].mean()))
    return {"private loss": sum(losses) / len(losses)} if losses else {}
