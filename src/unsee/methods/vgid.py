"""VGID: distil the original model's guarded answers about noised images (arXiv 2606.00105).

The form is the paper's (equations 49 and 50); noise, instruction, weights and answers are ours where it is silent, marked
[inferred]. With retain_weight=0 a name and pictures are enough: no retain set.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Literal

import torch
from PIL import Image
from torch import Tensor

from unsee.api import Example, Family, ImageSource, Method, Needs, Promise, Session, Training, Trial
from unsee.api.request import Target
from unsee.errors import UserError
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import Batch
from unsee.losses import kl_loss
from unsee.methods.common.guidance import INSTRUCTION, all_drawn, forget_questions, idle_draws, without_private
from unsee.methods.common.idle import idle_term
from unsee.methods.common.reference_model import StartLogits, Teacher
from unsee.models.wrapper import Wrapper
from unsee.training.targets import retain_targets
from unsee.training.trainer import Parts, minimise, plan_batches
from unsee.utils.seeds import seed_of

CHANNELS: Final = 3
"""Colours of a pixel."""


@dataclass(frozen=True, kw_only=True)
class VGID(Method):
    """Distil the answers under a noised image and an instruction into the model without both."""

    promise: ClassVar[Promise] = "picture"
    trial: ClassVar[Trial] = Trial(settings={"rollouts": 2, "temperature": 0.0})

    forget_weight: float = 1.0
    """Alpha, the weight of KL(teacher || model) on the forget questions [inferred]."""
    retain_weight: float = 1.0
    """Beta, the weight of KL(original || model) on the retain answers; 0 = none [inferred]."""
    noise: float = 0.5
    """Standard deviation of the noise on the pixels as the model gets them, in units of the processor's own scale [inferred]."""
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

    def idle(self, training: Training) -> Iterator[tuple[str, str]]:  # noqa: ARG002 - the contract
        """Yield the settings without effect beside the others."""
        yield from idle_draws("method.rollouts", self.rollouts, self.temperature)
        yield from idle_term(self.forget_weight, "forget_weight", ("noise", "instruction"))

    def unlearn(self, session: Session) -> None:
        """Minimise both divergences."""
        retain_answers = retain_targets(session, self.retain_weight)
        guided_session = self._guided_session(session)
        noised_targets = self._teacher_targets(guided_session)
        questions = forget_questions(session, self.queries)
        examples_by_id = {example.id: example for example in questions}
        targets = [replace(target, example=examples_by_id[target.example.id]) for target in noised_targets]
        noised_by_key = {
            target.key: noised_target for target, noised_target in zip(targets, noised_targets, strict=True)
        }
        guide = StartLogits(guided_session, noised_targets, instruction=self.instruction, teacher=self.teacher)
        start = (
            StartLogits(session, plan_batches(session, targets, retain_answers).met(), teacher=self.teacher)
            if retain_answers
            else None
        )

        def objective(forget: Batch, retain: Batch | None) -> Iterator[Parts]:
            logits_bav, labels_ba = answer_logits(session.model, forget)
            guided_bav = guide([noised_by_key[target.key] for target in forget.targets], labels_ba)
            vgid = kl_loss(guided_bav, logits_bav, labels_ba)
            yield {"loss": self.forget_weight * vgid, "vgid": vgid}
            if retain is not None and start is not None:
                logits_bav, labels_ba = answer_logits(session.model, retain)
                retain_kl = kl_loss(start(retain.targets, labels_ba), logits_bav, labels_ba)
                yield {"loss": self.retain_weight * retain_kl, "retain_kl": retain_kl}

        minimise(session, objective, forget=targets, retain=retain_answers, questions=questions)

    def _teacher_targets(self, guided_session: Session) -> list[Target]:
        """Return the teacher's answers to the forget questions with noised images.

        Those that give a private string away are drawn again [inferred].
        """
        examples = self._noised_questions(guided_session)
        draws = without_private("noised", self.rollouts, self.temperature, self.instruction)
        message = (
            "Every answer of the teacher has a private term: neither noise nor instruction hides the person. Raise "
            "method.noise, or try another method.instruction."
        )
        return all_drawn(guided_session, examples, draws, message)

    def _guided_session(self, session: Session) -> Session:
        """Return the session of the teacher, with noise on every picture."""
        noising_family = Noising(session.family, self.noise, session.seed)
        # Pictures are cached by processor: a copy keeps those with noise apart from the student's.
        return replace(session, vlm=replace(session.vlm, family=noising_family, processor=copy.copy(session.processor)))

    def _noised_questions(self, session: Session) -> list[Example]:
        """Return the forget questions about noised pictures."""
        return [
            replace(example, image=Noised(example.image, self.noise, session.seed)) if example.image else example
            for example in forget_questions(session, self.queries)
        ]


@dataclass(frozen=True)
class Noised:
    """A picture under another key, to be read with `Noising`."""

    image: ImageSource
    noise: float
    seed: int

    @property
    def key(self) -> str:
        """Equal exactly when the pixels with their noise are."""
        return f"{self.image.key} + pixel noise {self.noise:.6g}, seed {self.seed}"

    def load(self) -> Image.Image:
        """Return the picture without noise."""
        return self.image.load()


class Noising(Wrapper):
    """A family whose pixels have normal noise, the same for the same picture and seed.

    It is added after the processor, which would average noise on a larger picture away.
    """

    def __init__(self, inner: Family, noise: float, seed: int) -> None:
        """Wrap a family. `noise` is the standard deviation, in units of the processor's own scale."""
        super().__init__(inner)
        self.noise, self.seed = noise, seed

    def changed(self, row: dict[str, Tensor], processor: Any, image: Image.Image | None) -> dict[str, Tensor]:
        """Return the inputs with noise on the pixels."""
        if image is None:
            return row
        frames = getattr(processor.image_processor, "temporal_patch_size", 1)
        return {**row, "pixel_values": self._with_noise(row["pixel_values"], frames)}

    def _with_noise(self, pixels: Tensor, frames: int) -> Tensor:
        """Return pixels with noise.

        In flat patches (Qwen) a picture is `frames` equal frames, which get equal noise.
        """
        digest = hashlib.sha256(pixels.float().numpy().tobytes()).hexdigest()
        generator = torch.Generator().manual_seed(seed_of(self.seed, "noise", digest))
        if pixels.dim() != 2:
            return pixels + self.noise * torch.randn(pixels.shape, generator=generator).to(pixels.dtype)
        frame_noise = torch.randn(len(pixels), CHANNELS, 1, pixels.shape[1] // (CHANNELS * frames), generator=generator)
        noise = frame_noise.expand(-1, -1, frames, -1).reshape(pixels.shape)
        return pixels + self.noise * noise.to(pixels.dtype)
