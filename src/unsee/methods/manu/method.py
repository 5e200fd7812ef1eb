"""MANU: prune neurons that matter for forget images and not for retain images (arXiv 2502.15910).

Modality-aware neuron unlearning of Liu et al., ACL 2025, without training. The published code
(https://github.com/franciscoliu/MANU) scores and prunes otherwise (`unsee.methods.manu.released`). What the paper leaves open
is marked [inferred]. Shapes: n neurons of an MLP.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn import Linear

from unsee.api import Example, Group, Method, Needs, Role, Session, Trial
from unsee.errors import UserError
from unsee.methods.common.down_projections import down_projections
from unsee.methods.manu import released
from unsee.methods.manu.activity import EPS, importance, measured
from unsee.utils.grouping import evenly


@dataclass(frozen=True, kw_only=True)
class Manu(Method):
    """Score every MLP neuron by how its activity differs with and without the image, and zero the highest share."""

    group: ClassVar[Group] = "weights"
    trial: ClassVar[Trial] = Trial(tunes=("full",))

    mode: Literal["paper", "as_released"] = "paper"
    """paper = the formulas; as_released = the published code, another algorithm, with its layers told apart [code]."""
    share: float = 0.02
    """Share of the neurons that is zeroed, of each trained part or (as_released) of all; 0.01 to 0.05 are best in the paper."""
    threshold: float = 0.1
    """Tau: a neuron is active where its absolute activation is above it [code]; as_released: without effect, as published."""
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

    def unlearn(self, session: Session) -> None:
        """Measure, score and prune."""
        if isinstance(session.model, PeftModel):
            raise UserError("manu zeroes weights of the model itself, which no adapter can do. Set --tune full.")
        if self.mode == "as_released":
            self._as_released(session)
        else:
            self._as_written(session)

    def _as_written(self, session: Session) -> None:
        """Prune each of `training.parts` by itself, by how activity differs with and without the image."""
        chosen = {part: self._neurons(session, part) for part in session.training.parts if part != "projector"}
        modules = {name: module for found in chosen.values() for name, module in found.items()}
        seen = set(chosen.get("vision", ()))
        if not modules:
            raise UserError("manu finds no MLP in training.parts. Name language, vision, or both.")
        shown = [self._examples(session, role) for role in (Role.FORGET, Role.RETAIN)]
        forget, retain = (self._importance(session, examples, modules, seen) for examples in shown)
        scores = {name: forget[name] / (retain[name] + EPS) for name in modules}
        session.notes["manu"] = {
            part: _pruned({name: modules[name] for name in found}, scores, self.share) for part, found in chosen.items()
        }

    def _neurons(self, session: Session, part: Any) -> dict[str, Linear]:
        """Return the second MLP matrices of a part."""
        return down_projections(session.model, session.family.parts(session.model)[part])

    def _importance(
        self, session: Session, examples: Iterable[list[Example]], modules: Mapping[str, Linear], seen: set[str]
    ) -> dict[str, Tensor]:
        """Return I(D, n) of the neurons of every module, on examples with their images and without."""
        multi, text = (measured(session, shown, modules, seen, self.threshold) for shown in examples)
        return {name: importance(multi[name], text[name]) for name in modules}

    def _examples(self, session: Session, role: Role) -> tuple[list[Example], list[Example]]:
        """Return the measured examples of a role, with their images and without."""
        examples = [example for example in session.of(role) if example.image is not None]
        if not examples:
            raise UserError(f"manu compares questions with and without their image, but the {role} role has no image.")
        shown = list(evenly(examples, self.samples))
        return shown, [replace(example, image=None) for example in shown]

    def _as_released(self, session: Session) -> None:
        """Prune the last layers of all `training.parts` together, the vision tower by images, the language model by text."""
        model, parts = session.model, session.family.parts(session.model)
        chosen = {part: released.matrices(model, parts[part]) for part in session.training.parts if part != "projector"}
        modules = {name: module for found in chosen.values() for name, module in found.items()}
        if not modules:
            raise UserError("manu finds no MLP in training.parts. Name language, vision, or both.")
        scores = {}
        shown = {role: self._examples(session, role) for role in (Role.FORGET, Role.RETAIN)}
        for part, found in chosen.items():
            blind = part == "language"
            forget, retain = (released.activity(session, shown[role][blind], found, seen=not blind) for role in shown)
            scores.update({name: released.score(forget[name], retain[name]) for name in found})
        session.notes["manu"] = released.prune(modules, scores, self.share)


def _pruned(modules: Mapping[str, Linear], scores: Mapping[str, Tensor], share: float) -> dict[str, Any]:
    """Zero the outgoing weights of the highest share of neurons, and return how many per module."""
    if not modules:
        return {"neurons": 0, "zeroed": {}}
    every = torch.cat([scores[name].cpu() for name in modules])
    highest = every.topk(max(1, round(share * len(every)))).indices
    zeroed, first = {}, 0
    for name, module in modules.items():
        mine = highest[(highest >= first) & (highest < first + module.in_features)] - first
        first += module.in_features
        with torch.no_grad():
            module.weight[:, mine.to(module.weight.device)] = 0
        zeroed[name] = len(mine)
    return {"neurons": len(every), "zeroed": zeroed}
