"""MANU: prune neurons that matter for forget images and not for retain images (arXiv 2502.15910).

Modality-aware neuron unlearning of Liu et al., ACL 2025, without training. The published code
(https://github.com/franciscoliu/MANU) scores and prunes otherwise; this is the paper's form. What it leaves open is marked
[inferred]. Shapes: b rows, t tokens, n neurons of an MLP.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn import Linear, Module

from unsee.api import Example, Group, Method, Needs, Role, Session, Trial
from unsee.api.request import Target
from unsee.compat.probes import trying
from unsee.errors import UserError
from unsee.inference.batching import Batch, collate
from unsee.losses import IGNORE
from unsee.methods.common.down_projections import down_projections
from unsee.methods.common.reference_model import CHUNK, as_start
from unsee.training.precision import autocast

_EPS = 1e-8


@dataclass(frozen=True, kw_only=True)
class Manu(Method):
    """Score every MLP neuron by how its activity differs with and without the image, and zero the highest share."""

    group: ClassVar[Group] = "weights"
    trial: ClassVar[Trial] = Trial(tunes=("full",))

    share: float = 0.02
    """Share of the neurons of each trained part that is zeroed; 0.01 to 0.05 are best in the paper."""
    threshold: float = 0.1
    """Tau: a neuron is active where its absolute activation is above it; from the published code [code]."""
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
        """Measure, score and prune, in each of `training.parts` by itself."""
        if isinstance(session.model, PeftModel):
            raise UserError("manu zeroes weights of the model itself, which no adapter can do. Set --tune full.")
        chosen = {part: self._neurons(session, part) for part in session.training.parts if part != "projector"}
        modules = {name: module for found in chosen.values() for name, module in found.items()}
        seen = set(chosen.get("vision", ()))
        if not modules:
            raise UserError("manu finds no MLP in training.parts. Name language, vision, or both.")
        forget, retain = (self._importance(session, role, modules, seen) for role in (Role.FORGET, Role.RETAIN))
        scores = {name: forget[name] / (retain[name] + _EPS) for name in modules}
        session.notes["manu"] = {
            part: _pruned({name: modules[name] for name in found}, scores, self.share) for part, found in chosen.items()
        }

    def _neurons(self, session: Session, part: Any) -> dict[str, Linear]:
        """Return the second MLP matrices of a part."""
        return down_projections(session.model, session.family.parts(session.model)[part])

    def _importance(
        self, session: Session, role: Role, modules: Mapping[str, Linear], seen: set[str]
    ) -> dict[str, Tensor]:
        """Return I(D, n) of the neurons of every module, on the examples of a role that have an image."""
        examples = [example for example in session.of(role) if example.image is not None]
        if not examples:
            raise UserError(f"manu compares questions with and without their image, but the {role} role has no image.")
        count = min(self.samples, len(examples))
        examples = [examples[place * len(examples) // count] for place in range(count)]
        multi, text = (
            _measured(session, shown, modules, seen, self.threshold)
            for shown in (examples, [replace(example, image=None) for example in examples])
        )
        return {name: importance(multi[name], text[name]) for name in modules}


@dataclass
class Activity:
    """Sums over tokens of the activations of n neurons, in double precision."""

    tokens: int
    size_n: Tensor
    """Of |z|."""
    sum_n: Tensor
    """Of z."""
    square_n: Tensor
    """Of z^2."""
    active_n: Tensor
    """Number of tokens with |z| above the threshold."""

    @classmethod
    def none(cls, module: Linear) -> Activity:
        """Return the activity of no token."""
        zeros = [torch.zeros(module.in_features, dtype=torch.float64, device=module.weight.device) for _ in range(4)]
        return cls(0, *zeros)

    def add(self, states_tn: Tensor, threshold: float) -> None:
        """Count tokens in."""
        states_tn = states_tn.double()
        self.tokens += len(states_tn)
        self.size_n += states_tn.abs().sum(0)
        self.sum_n += states_tn.sum(0)
        self.square_n += states_tn.square().sum(0)
        self.active_n += (states_tn.abs() > threshold).sum(0)


def importance(multi: Activity, text: Activity) -> Tensor:
    """Return I(D, n), the sum of four contrasts of a neuron's activity with and without the image (arXiv 2502.15910).

    |Z_m - Z_t| / (Z_m + Z_t) with Z the mean |z|; the same of the number of active tokens; sqrt(V_m + V_t) with V the mean
    of (z - Z)^2; the root of the contrast of the sums of z^2. Without tokens all are 0, as for a vision tower without image
    [inferred].
    """
    means = [one.size_n / max(1, one.tokens) for one in (multi, text)]
    variances = [
        (one.square_n - 2 * mean * one.sum_n) / max(1, one.tokens) + (mean.square() if one.tokens else 0)
        for one, mean in zip((multi, text), means, strict=True)
    ]
    return (
        _contrast(*means)
        + _contrast(multi.active_n, text.active_n)
        + (variances[0] + variances[1]).clamp_min(0).sqrt()
        + _contrast(multi.square_n, text.square_n).sqrt()
    )


def _contrast(one_n: Tensor, other_n: Tensor) -> Tensor:
    """Return |a - b| / (a + b + eps) of numbers that are not negative."""
    return (one_n - other_n).abs() / (one_n + other_n + _EPS)


def _measured(
    session: Session, examples: Sequence[Example], modules: Mapping[str, Linear], seen: set[str], threshold: float
) -> dict[str, Activity]:
    """Return the activity in front of every module on the examples' own answers.

    In the language model the tokens of the answer count, which are the same with and without the image; in the vision tower
    (`seen`) all patches [inferred].
    """
    found = {name: Activity.none(module) for name, module in modules.items()}
    with as_start(session.model), autocast(session.model, session.training):
        for start in range(0, len(examples), CHUNK):
            targets = [Target(example=example) for example in examples[start : start + CHUNK]]
            for _, batch in collate(session, targets).kinds:
                with _counting(batch, modules, seen, found, threshold):
                    session.model(**batch.inputs, use_cache=False)
    return found


@contextmanager
def _counting(
    batch: Batch, modules: Mapping[str, Linear], seen: set[str], found: Mapping[str, Activity], threshold: float
) -> Iterator[None]:
    """Add the inputs of the modules in the passes of the block to their activity."""
    answers_bt = batch.labels_bt != IGNORE

    def note(name: str, _: Module, args: tuple[Tensor, ...]) -> None:
        states = args[0]
        if trying():
            return
        if name in seen:
            states = states.flatten(0, -2)
        elif states.shape[:-1] == answers_bt.shape:
            states = states[answers_bt]
        else:
            raise UserError(f"manu reads MLPs that see every token of a batch, which {name} of this model does not.")
        found[name].add(states, threshold)

    handles = [module.register_forward_pre_hook(partial(note, name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


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
