"""VGID: distil the original model's guarded answers about noised images (arXiv 2606.00105).

The form is the paper's (equations 49 and 50); noise, instruction, weights and answers are ours where it is silent, marked
[inferred]. With retain_weight=0 a name and pictures are enough: no retain set.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, ClassVar, Literal

import numpy
from PIL import Image

from unsee.api import Example, ImageSource, Method, Needs, Promise, Session, Trial
from unsee.api.request import Target
from unsee.errors import UserError
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import Batch
from unsee.losses import kl_loss
from unsee.methods.common.guidance import INSTRUCTION, drawn_targets, forget_questions, without_private
from unsee.methods.common.reference_model import StartLogits, Teacher
from unsee.training.targets import retain_targets
from unsee.training.trainer import Parts, minimise, planned
from unsee.utils.seeds import seed_of


@dataclass(frozen=True, kw_only=True)
class VGID(Method):
    """Teach the answers that the original model gives with a noised image and an instruction, without either of them."""

    promise: ClassVar[Promise] = "picture"
    trial: ClassVar[Trial] = Trial(settings={"rollouts": 2, "temperature": 0.0})

    forget_weight: float = 1.0
    """Alpha, the weight of KL(teacher || model) on the forget questions [inferred]."""
    retain_weight: float = 1.0
    """Beta, the weight of KL(original || model) on the retain answers; 0 = none [inferred]."""
    noise: float = 0.5
    """Standard deviation of the noise on the pixels, in units of the processor's own scale [inferred]."""
    instruction: str = INSTRUCTION
    """In-context request u of the teacher [inferred]."""
    rollouts: int = 5
    """Teacher answers per image and question [inferred]."""
    temperature: float = 1.0
    """Sampling temperature of the answers; 0 = greedy, one answer [inferred]."""
    queries: Literal["all", "open"] = "all"
    """Train on all questions for private information, or only on open ones [inferred]."""
    teacher: Teacher = "auto"
    """Source of teacher logits: kept in memory, recomputed, or as memory allows."""

    def __post_init__(self) -> None:
        """Reject settings by which nothing could be drawn."""
        super().__post_init__()
        if self.noise < 0 or self.temperature < 0 or self.rollouts < 1:
            raise UserError(
                "vgid needs method.noise >= 0, method.temperature >= 0 and method.rollouts >= 1, got "
                f"{self.noise}, {self.temperature} and {self.rollouts}."
            )

    def needs(self) -> Needs:
        """Return the memory requirements of a step."""
        return replace(super().needs(), teacher=True, generates=True)

    def unlearn(self, session: Session) -> None:
        """Minimise both divergences."""
        noised = self._teacher_targets(session)
        shown = {example.id: example for example in forget_questions(session, self.queries)}
        targets = [replace(target, example=shown[target.example.id]) for target in noised]
        hidden = {target.key: other for target, other in zip(targets, noised, strict=True)}
        kept = retain_targets(session, self.retain_weight)
        guide = StartLogits(session, noised, instruction=self.instruction, teacher=self.teacher)
        start = StartLogits(session, planned(session, targets, kept).met(), teacher=self.teacher) if kept else None

        def objective(forget: Batch, retain: Batch | None) -> Iterator[Parts]:
            logits_bav, labels_ba = answer_logits(session.model, forget)
            guided_bav = guide([hidden[target.key] for target in forget.targets], labels_ba)
            vgid = kl_loss(guided_bav, logits_bav, labels_ba)
            yield {"loss": self.forget_weight * vgid, "vgid": vgid}
            if retain is not None and start is not None:
                logits_bav, labels_ba = answer_logits(session.model, retain)
                retain_kl = kl_loss(start(retain.targets, labels_ba), logits_bav, labels_ba)
                yield {"loss": self.retain_weight * retain_kl, "retain_kl": retain_kl}

        minimise(session, objective, forget=targets, retain=kept)

    def _teacher_targets(self, session: Session) -> list[Target]:
        """Return the teacher's answers to the forget questions with noised images.

        Those that give a private string away are drawn again [inferred].
        """
        examples = self._noised(session, forget_questions(session, self.queries))
        wanted = without_private("noised", self.rollouts, self.temperature, self.instruction)
        none = (
            "Every answer of the teacher has a private term: neither noise nor instruction hides the person. Raise "
            "method.noise, or try another method.instruction."
        )
        return list(chain.from_iterable(drawn_targets(session, examples, wanted, none).values()))

    def _noised(self, session: Session, examples: Sequence[Example]) -> list[Example]:
        """Return the examples with noise on their images, one draw per image."""
        std = session.processor.image_processor.image_std or (1.0,)
        scale = 255 * self.noise * sum(std) / len(std)
        edge = _shortest_edge(session.processor.image_processor)
        return [
            replace(example, image=Noised(example.image, scale, session.seed, edge)) if example.image else example
            for example in examples
        ]


@dataclass(frozen=True)
class Noised:
    """An image with normal noise on its pixels, the same for the same seed."""

    image: ImageSource
    scale: float
    """Standard deviation, of 255."""
    seed: int
    edge: int = 0
    """Shorter edge that a larger picture is reduced to before, as the processor would do after and so average the noise away;
    0 = leave its size."""

    @property
    def key(self) -> str:
        """Equal exactly when the pixels are."""
        return f"{self.image.key} at {self.edge} + noise {self.scale:.6g}, seed {self.seed}"

    def load(self) -> Image.Image:
        """Return the noised image in RGB."""
        image = self.image.load().convert("RGB")
        if self.edge and min(image.size) > self.edge:
            factor = self.edge / min(image.size)
            image = image.resize((round(factor * image.width), round(factor * image.height)), Image.Resampling.BICUBIC)
        pixels = numpy.asarray(image, dtype=numpy.float64)
        drawn = numpy.random.default_rng(seed_of(self.seed, "noise", self.image.key)).normal(size=pixels.shape)
        return Image.fromarray((pixels + self.scale * drawn).round().clip(0, 255).astype(numpy.uint8))


def _shortest_edge(image_processor: Any) -> int:
    """Return the shorter edge that the processor reduces pictures to, or 0 where its settings do not say it in pixels."""
    sizes = getattr(image_processor, "size", None) or {}
    found = sizes.get("shortest_edge") or min(sizes.get("height") or 0, sizes.get("width") or 0)
    return int(found)
