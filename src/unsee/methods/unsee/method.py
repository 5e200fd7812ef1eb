"""Shrink and distil: a shrunk copy learns the original's answers outside the forget set.

Made of UNDO (arXiv 2506.06278: shrink, noise, distil) and PUBG (arXiv 2506.02541: the privacy instruction as teacher). The
combination, the teacher by invented names and all defaults are ours [inferred].
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from torch import Tensor

from unsee.api import Method, Needs, Role, Session, Training, Trial
from unsee.errors import UserError
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import Batch
from unsee.losses import per_sample, token_js, token_kl
from unsee.methods.common.guidance import INSTRUCTION, idle_draws
from unsee.methods.common.reference_model import StartLogits, Teacher
from unsee.methods.unsee.forms import Form
from unsee.methods.unsee.student import KeptStop, shrink
from unsee.methods.unsee.teacher import Scope, TeacherDistribution, kept_targets, lessons, with_name_share
from unsee.training.collapse_guard import spread
from unsee.training.trainer import Parts, minimise, plan_batches
from unsee.utils.terminal import note_once

PROBES = 32
"""Number of retained answers that the stop rule measures."""


@dataclass(frozen=True, kw_only=True)
class Unsee(Method):
    """Distil the original model into a shrunk copy, without its knowledge of the forget set.

    No term ascends: each is a divergence that falls towards 0. Forgetting ends no run (a shrunk model says nothing private
    at once), so `training.stop` is not obeyed. Without retain rows nothing could be learnt again, so nothing is shrunk.
    """

    trial: ClassVar[Trial] = Trial(settings={"rollouts": 2, "retain_ratio": 1})

    scope: Scope = "person"
    """person: forget by picture and, where the data ask by name, by name; picture: answers by name are kept."""
    shrink: float = 0.2
    """Share that is taken from the trained matrices; 0 = plain distillation, 1 = learn from noise. UNDO tries .1 to .8 [paper]; .2 was
    chosen on the lab (docs/leaderboard.md), and a pretrained model was destroyed by .6 [inferred]."""
    noise: float = 0.1
    """Size of the Xavier noise that takes its place, relative to an initialisation; .1 [paper], 0 = shrink only."""
    located: str = ""
    """Regular expression that is searched in the names of the modules to shrink (`mlp`, `layers[.][12]`); empty = all trained."""
    strangers: float = 0.0
    """Share of the original's distribution on the picture of the stranger who looks most alike; needs training rows of strangers,
    which data of your own do not have [inferred]."""
    divergence: Literal["forward", "reverse", "js"] = "forward"
    """KL(teacher || student), KL(student || teacher), or Jensen-Shannon, which is at most log 2."""
    forget_weight: float = 1.0
    """Weight of the divergence on the forget set."""
    retain_weight: float = 1.0
    """Weight of the divergence from the original on retain, stranger and general rows; 0 = without them, unshrunk."""
    retain_ratio: int = 3
    """Retained answers per answer about the forget set."""
    forms: tuple[Form, ...] = ()
    """Other forms in which the retain set is asked too, made from its rows: cloze, choice [inferred]."""
    kept: float = 0.0
    """Stop at the first check where the divergence on 32 retained answers is at most this (nats per token); 0 = take all steps."""
    instruction: str = INSTRUCTION
    """Instruction under which the original model tells nothing private about a picture."""
    rollouts: int = 4
    """Answers drawn per picture and question, and per question by name."""
    name_share: float = 0.0
    """Least share of lessons by name, which are repeated up to it; data with many pictures of few people ask by name rarely. 0 = as
    drawn [inferred]."""
    temperature: float = 1.0
    """Sampling temperature of these answers; 0 = greedy, one answer."""
    teacher: Teacher = "auto"
    """Source of teacher logits: kept in memory, recomputed, or as memory allows."""

    def __post_init__(self) -> None:
        """Reject values that no run could use."""
        super().__post_init__()
        for name in ("shrink", "strangers"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"method.{name} is a share and must lie in 0..1, got {getattr(self, name)}.")
        if not 0 <= self.name_share < 1:
            raise UserError(
                f"method.name_share is a share of the lessons and must lie in 0..1 (below 1), got {self.name_share}."
            )
        for name in ("noise", "kept"):
            if getattr(self, name) < 0:
                raise UserError(f"method.{name} must not be negative, got {getattr(self, name)}.")
        for name in ("retain_ratio", "rollouts"):
            if getattr(self, name) < 1:
                raise UserError(f"method.{name} must be at least 1, got {getattr(self, name)}.")
        try:
            re.compile(self.located)
        except re.error as error:
            raise UserError(f"method.located is no regular expression: {self.located!r} ({error}).") from error

    def needs(self) -> Needs:
        """Return the memory requirements of a step."""
        return Needs(
            retain=self.retain_ratio if self.retain_weight else 0,
            teacher=True,
            generates=True,
            stops=False,
            checks=bool(self.kept),
            full_weights="starts from singular components of the base's weights (unless method.shrink=0)"
            if self.shrink
            else "",
        )

    def idle(self, training: Training) -> Iterator[tuple[str, str]]:  # noqa: ARG002 - the contract
        """Yield the settings without effect beside the others."""
        yield from idle_draws("method.rollouts", self.rollouts, self.temperature)
        if not self.retain_weight:
            for name in ("shrink", "retain_ratio", "forms", "kept"):
                yield f"method.{name}", "with method.retain_weight above 0"
        if not (self.shrink and self.retain_weight):
            for name in ("noise", "located"):
                yield f"method.{name}", "with method.shrink and method.retain_weight above 0"
        if self.scope == "picture":
            yield "method.name_share", "with method.scope=person"

    def _require_usable(self, session: Session) -> None:
        """Raise for settings that do not go together.

        Shrinking would overwrite an adapter, a guard would go back to the shrunk weights, and `kept` measures other weights than
        averaging returns.
        """
        if self.strangers and not any(row.image for row in session.of(Role.STRANGER)):
            raise UserError(
                f"method.strangers={self.strangers} needs pictures of strangers among the training rows, and these data have none "
                "(strangers of data of your own are judged only). Leave method.strangers out."
            )
        if self.kept and session.training.robust == "averaging":
            raise UserError(
                "method.kept measures the weights of the last step, and training.robust=averaging returns their mean. Set one of them."
            )
        if self.shrink and session.training.adapter:
            raise UserError(
                "unsee starts from shrunk weights, so it cannot go on from an adapter. Leave training.adapter out and give the "
                "earlier run as the model, or set method.shrink=0."
            )
        if self.shrink and session.training.guard != "none":
            raise UserError(
                "training.guard compares with the weights at the start, which unsee has shrunk. Leave it out, or set "
                "method.shrink=0; method.kept stops by what is kept."
            )

    def unlearn(self, session: Session) -> None:
        """Fix the teacher, shrink the student, and distil."""
        self._require_usable(session)
        session.training = replace(session.training, stop="never")
        taught_lessons = lessons(session, self.scope, self.instruction, self.rollouts, self.temperature)
        retain_answers = kept_targets(session, self.scope, self.forms) if self.retain_weight else []
        forget = [lesson.student for lesson in with_name_share(taught_lessons, self.name_share)]
        teacher_logprobs = TeacherDistribution(session, taught_lessons, self.strangers, self.teacher)
        probes = spread(retain_answers, PROBES) if self.kept else []
        plan = plan_batches(session, forget, retain_answers, self.retain_ratio)
        start = StartLogits(session, [*plan.met(), *probes], teacher=self.teacher)
        share = self.shrink if retain_answers else 0.0
        if self.shrink and self.retain_weight and not retain_answers:
            note_once(
                "method.shrink has no effect: without retain rows nothing could be learnt again, so nothing is shrunk."
            )
        shrunk_count = shrink(session.model, session.training, share, self.noise, self.located, session.seed)
        if share and not shrunk_count:
            raise UserError(
                f"method.located={self.located!r} fits no trained matrix. `mlp` or `self_attn` usually does; empty takes all."
            )
        session.notes.update(promise=self.scope, lessons=len(forget), shrink=share, shrunk=shrunk_count)
        session.notes["strangers"] = {
            "share": self.strangers,
            "lessons": sum(lesson.stranger is not None for lesson in taught_lessons),
        }

        def gap(batch: Batch) -> Tensor:
            logits_bav, labels_ba = answer_logits(session.model, batch)
            return self._gap(start(batch.targets, labels_ba), logits_bav, labels_ba)

        def objective(forget: Batch, retain: Batch | None) -> Iterator[Parts]:
            logits_bav, labels_ba = answer_logits(session.model, forget)
            forget_gap = self._gap(teacher_logprobs(forget, labels_ba), logits_bav, labels_ba)
            yield {"loss": self.forget_weight * forget_gap, "forget_gap": forget_gap}
            if retain is not None:
                retain_gap = gap(retain)
                yield {"loss": self.retain_weight * retain_gap, "retain_gap": retain_gap}

        if probes:
            check_interval = session.training.check_every or plan.steps_per_epoch
            session.callbacks = [*session.callbacks, KeptStop(session, probes, gap, self.kept, check_interval)]
        minimise(session, objective, forget=forget, retain=retain_answers, retain_ratio=self.retain_ratio)

    def _gap(self, teacher_bav: Tensor, student_bav: Tensor, labels_ba: Tensor) -> Tensor:
        """Return the divergence, averaged over the tokens of an answer, then over answers."""
        if self.divergence == "js":
            return per_sample(token_js(teacher_bav, student_bav), labels_ba).mean()
        return per_sample(token_kl(teacher_bav, student_bav, self.divergence), labels_ba).mean()
