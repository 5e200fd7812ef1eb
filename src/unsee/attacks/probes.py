"""Probes: linear read-out of identity and facts from the hidden states of every layer (arXiv 1610.01644, 1909.03368).

Shapes: n rows, d width, c classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from unsee.api import VLM, Attack, Example, Finding, Kind, Role, Victim
from unsee.errors import UserError
from unsee.evaluation.recovery import ask, finding, probed_rows, thinned
from unsee.evaluation.teacher_forcing import fed, layer_states
from unsee.models.steering.hooks import common_layers, left_off
from unsee.utils.grouping import by_key

Target = Literal["facts", "identity"]


@dataclass(frozen=True, kw_only=True)
class Probes(Attack):
    """Fit a ridge classifier on the states before the answer, and read what the model does not say.

    Facts are learnt from the retain set and read from the forgotten entities' held-out pictures: no face tells a job, so what
    is read is knowledge. Identity is learnt from training pictures of the forgotten entities; a model that never met
    them tells faces apart too, so that only what lies above gold counts. `random labels` is the accuracy of a probe that
    was fitted on shuffled labels.
    """

    needs: ClassVar[Literal["answers", "weights"]] = "weights"
    finds: ClassVar[Literal["answers", "traces"]] = "traces"
    axis: ClassVar[str] = "decoder layer"

    targets: tuple[Target, ...] = ("facts", "identity")
    """What is read."""
    ridge: float = 1.0
    """Weight of the squared norm of the probe, per row [inferred]."""
    images: int = 2
    """Pictures per entity and question; 0 = all."""

    def __post_init__(self) -> None:
        """Reject a probe without regularisation, which more features than rows would not determine."""
        super().__post_init__()
        if self.ridge <= 0:
            raise UserError(f"attack.ridge must be positive, got {self.ridge}.")

    def quick(self) -> Self:
        """Return one picture per entity and question."""
        return replace(self, images=1)

    def run(self, victim: Victim) -> Iterator[Finding]:
        """Read every target from every layer."""
        splits = {target: self._split(victim, target) for target in self.targets}
        usable = {target: split for target, split in splits.items() if all(split)}
        if not usable:
            raise UserError(
                "Nothing can be probed: no fact of a forgotten entity has a value that a retained one shares, "
                "or fewer than two forgotten entities have both training and held-out pictures."
            )
        loaded = victim.open()
        texts = [answer.text for answer in ask(loaded, probed_rows(victim.benchmark, 1))]
        for target, (fitted, held) in usable.items():
            yield from self._read(loaded, target, fitted, held, texts, victim.seed)

    def _split(self, victim: Victim, target: Target) -> tuple[list[Example], list[Example]]:
        """Return the rows to fit and to read."""
        known = [row for row in victim.benchmark.examples("train") if row.image and row.answer]
        rows = [row for row in probed_rows(victim.benchmark, self.images) if row.answer]
        held = [row for row in rows if row.role == Role.UNSEEN and row.image]
        if target == "identity":
            named = [row for row in known if row.role == Role.FORGET and row.kind == Kind.NAME]
            both = {row.entity for row in named} & {row.entity for row in held if row.kind == Kind.NAME}
            fitted = thinned([row for row in named if row.entity in both], self.images)
            held = [row for row in held if row.kind == Kind.NAME and row.entity in both]
            return (fitted, held) if len(both) > 1 else ([], [])
        facts = [row for row in known if row.role == Role.RETAIN and row.kind == Kind.FACT and _value(row)]
        values = {_value(row) for row in facts}
        held = [row for row in held if row.kind == Kind.FACT and _value(row) in values]
        asked = {row.fact for row in held}
        return thinned([row for row in facts if row.fact in asked], self.images), held

    def _read(
        self,
        loaded: VLM,
        target: Target,
        fitted: Sequence[Example],
        held: Sequence[Example],
        texts: Sequence[str],
        seed: int,
    ) -> Iterator[Finding]:
        label = _identity if target == "identity" else _value
        layers = common_layers(loaded.model)
        known, new = (_states(loaded, rows, layers) for rows in (fitted, held))
        shuffled = _shuffled(fitted, [label(row) for row in fitted], seed)
        for place, layer in enumerate(layers):
            told, control = (
                _ridge_classes(known[place], labels, new[place], self.ridge)
                for labels in ([label(row) for row in fitted], shuffled)
            )
            hits, chance = (
                [said == label(row) for said, row in zip(labels, held, strict=True)] for labels in (told, control)
            )
            further = {"random labels": sum(chance) / len(chance), **left_off(loaded.model)}
            yield finding(target, held, hits, texts, layer, further)


def _shuffled(rows: Sequence[Example], labels: Sequence[str], seed: int) -> list[str]:
    """Return the labels in random order within each fact: the question tells which fact it asks for, so that is no finding."""
    places = by_key((row.fact, place) for place, row in enumerate(rows))
    mixed, draw = list(labels), Random(seed)
    for those in places.values():
        chosen = draw.sample(those, len(those))
        for place, other in zip(those, chosen, strict=True):
            mixed[place] = labels[other]
    return mixed


def _ridge_classes(known_nd: Tensor, labels: Sequence[str], new_nd: Tensor, ridge: float) -> list[str]:
    """Return the classes of the new rows by ridge regression to one-hot labels, on standardised states."""
    classes = sorted(set(labels))
    mean_d, spread_d = known_nd.mean(0), known_nd.std(0, correction=0).clamp_min(1e-6)
    fit_nd, test_nd = ((states_nd - mean_d) / spread_d for states_nd in (known_nd, new_nd))
    wanted_nc = one_hot(torch.tensor([classes.index(label) for label in labels]), len(classes)).double()
    offset_c = wanted_nc.mean(0)
    kernel_nn = fit_nd @ fit_nd.T + ridge * len(labels) * torch.eye(len(labels), dtype=torch.float64)
    weights_nc = torch.linalg.solve(kernel_nn, wanted_nc - offset_c)
    scores_nc = test_nd @ fit_nd.T @ weights_nc + offset_c
    return [classes[place] for place in scores_nc.argmax(1).tolist()]


def _states(loaded: VLM, rows: Sequence[Example], layers: Sequence[int]) -> Tensor:
    """Return the states at the last token of the prompt [layers, n, d], on the CPU."""
    states = []
    for row in rows:
        given = fed(loaded, row)
        last = slice(given.before.start, given.before.start + 1)
        found = layer_states(loaded.model, given, last)
        states.append(torch.stack([found[layer][0] for layer in layers]))
    return torch.stack(states, 1).double().cpu()


def _value(row: Example) -> str:
    """Return the fact and its value, or an empty string where the row has none."""
    forms = row.private.get(row.fact, ())
    return f"{row.fact}: {forms[0]}" if forms else ""


def _identity(row: Example) -> str:
    return row.entity
