"""MANU: prune neurons that matter for forget images and not for retain images (arXiv 2502.15910).

Modality-aware neuron unlearning of Liu et al., ACL 2025, without training. The published code
(https://github.com/franciscoliu/MANU) scores and prunes otherwise (`unsee.methods.manu.released`). What the paper leaves open
is marked [inferred]. Shapes: n neurons of an MLP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn import Linear, Module

from unsee.api import Example, Group, Method, Needs, Part, Role, Session, Training, Trial
from unsee.errors import UserError
from unsee.methods.common.down_projections import down_projections
from unsee.methods.manu import released
from unsee.methods.manu.activity import EPS, importance, neuron_activity
from unsee.utils.grouping import evenly
from unsee.utils.terminal import note_once


@dataclass(frozen=True, kw_only=True)
class Manu(Method):
    """Score every MLP neuron by how its activity differs with and without the image, and zero the highest share."""

    group: ClassVar[Group] = "weights"
    trial: ClassVar[Trial] = Trial(tunes=("full",))

    mode: Literal["paper", "as_released"] = "paper"
    """paper = the formulas; as_released = the published code, another algorithm, with its layers told apart [code]."""
    share: float = 0.02
    """Share of the neurons that is zeroed, of each trained part [inferred] or (as_released) of all; 0.01 to 0.05 are best in the paper
    [second-hand]."""
    threshold: float = 0.1
    """Tau: a neuron is active where its absolute activation is above it [code]; as_released ignores it, as published."""
    samples: int = 300
    """Forget and retain examples that are measured, at most each [inferred]."""

    def __post_init__(self) -> None:
        """Reject shares that prune nothing or everything."""
        super().__post_init__()
        if not 0 < self.share < 1:
            raise UserError(f"method.share must be above 0 and below 1, got {self.share}.")
        if self.samples < 1:
            raise UserError(f"method.samples must be at least 1, got {self.samples}.")

    def needs(self) -> Needs:
        """Return the memory requirements: four forward sweeps, no training."""
        return Needs(trains=False, edits=True, full_weights="sets weights of the base to 0")

    def idle(self, training: Training) -> Iterator[tuple[str, str]]:  # noqa: ARG002 - the contract
        """Yield the settings without effect beside the others."""
        if self.mode == "as_released":
            yield "method.threshold", "with method.mode=paper"

    def unlearn(self, session: Session) -> None:
        """Measure, score and prune."""
        if isinstance(session.model, PeftModel):
            raise UserError("manu zeroes weights of the model itself, which no adapter can do. Set --tune full.")
        if self.mode == "as_released":
            self._as_released(session)
        else:
            self._as_written(session)

    def _as_written(self, session: Session) -> None:
        """Prune each of `training.parts` by itself, by activity with and without the image."""
        modules_by_part, modules = _chosen(session, down_projections)
        vision_names = set(modules_by_part.get("vision", ()))
        role_examples = [self._examples(session, role) for role in (Role.FORGET, Role.RETAIN)]
        forget, retain = (self._importance(session, examples, modules, vision_names) for examples in role_examples)
        scores = {name: forget[name] / (retain[name] + EPS) for name in modules}
        session.notes["manu"] = {
            part: _prune({name: modules[name] for name in part_modules}, scores, self.share)
            for part, part_modules in modules_by_part.items()
        }

    def _importance(
        self, session: Session, examples: Iterable[list[Example]], modules: Mapping[str, Linear], vision_names: set[str]
    ) -> dict[str, Tensor]:
        """Return I(D, n) of the neurons of every module, from examples with and without image."""
        multi, text = (neuron_activity(session, variant, modules, vision_names, self.threshold) for variant in examples)
        return {name: importance(multi[name], text[name]) for name in modules}

    def _examples(self, session: Session, role: Role) -> tuple[list[Example], list[Example]]:
        """Return the measured examples of a role, with their images and without."""
        examples = [example for example in session.of(role) if example.image is not None]
        if not examples:
            raise UserError(f"manu compares questions with and without their image, but the {role} role has no image.")
        sampled_examples = list(evenly(examples, self.samples))
        return sampled_examples, [replace(example, image=None) for example in sampled_examples]

    def _as_released(self, session: Session) -> None:
        """Prune the last layers of all `training.parts` together.

        The vision tower is scored on images, the language model on text.
        """
        modules_by_part, modules = _chosen(session, released.matrices)
        scores = {}
        examples_by_role = {role: self._examples(session, role) for role in (Role.FORGET, Role.RETAIN)}
        for part, part_modules in modules_by_part.items():
            text_only = part == "language"
            forget, retain = (
                released.activity(session, examples_by_role[role][text_only], part_modules, seen=not text_only)
                for role in examples_by_role
            )
            scores.update({name: released.score(forget[name], retain[name]) for name in part_modules})
        session.notes["manu"] = released.prune(modules, scores, self.share)


def _chosen(
    session: Session, find: Callable[[Module, str], dict[str, Linear]]
) -> tuple[dict[Part, dict[str, Linear]], dict[str, Linear]]:
    """Return the matrices of each of `training.parts`, and of all together."""
    patterns = session.family.parts(session.model)
    if "projector" in session.training.parts and len(session.training.parts) > 1:
        note_once(
            "training.parts=projector is not pruned: manu scores neurons of the vision tower and the language model."
        )
    by_part: dict[Part, dict[str, Linear]] = {
        part: find(session.model, patterns[part]) for part in session.training.parts if part != "projector"
    }
    modules = {name: module for part_modules in by_part.values() for name, module in part_modules.items()}
    if not modules:
        raise UserError("manu finds no MLP in training.parts. Name language, vision, or both.")
    return by_part, modules


def _prune(modules: Mapping[str, Linear], scores: Mapping[str, Tensor], share: float) -> dict[str, Any]:
    """Zero the outgoing weights of the top share of neurons, and return counts per module."""
    if not modules:
        return {"neurons": 0, "zeroed": {}}
    highest = released.highest({name: scores[name] for name in modules}, share)
    with torch.no_grad():
        for name, module in modules.items():
            module.weight[:, highest[name].to(module.weight.device)] = 0
    return released.counts(highest)
