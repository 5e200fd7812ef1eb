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
from unsee.api.finite import require_values
from unsee.errors import UserError
from unsee.evaluation.recovery import ask, finding, limit_rows, probed_rows
from unsee.evaluation.teacher_forcing import layer_states, teacher_forced
from unsee.models.steering.hooks import common_layers, left_off
from unsee.utils.grouping import by_key
from unsee.utils.terminal import note_once

Target = Literal["facts", "identity"]


@dataclass(frozen=True, kw_only=True)
class Probes(Attack):
    """Read facts that the model does not state from its hidden states by ridge classifiers.

    The states are those before the answer. Facts are learnt from the retain set and read from the forgotten entities'
    held-out pictures: a face does not show a job, so a fact that is read is knowledge. Identity is learnt from training
    pictures of the forgotten entities; a model that never saw them tells faces apart too, so that only the excess over
    gold counts. Either needs two labels or more. `random labels` is the accuracy of a probe that was fitted on shuffled
    labels.
    """

    needs: ClassVar[Literal["answers", "weights"]] = "weights"
    finds: ClassVar[Literal["answers", "traces"]] = "traces"
    axis: ClassVar[str] = "decoder layer"

    targets: tuple[Target, ...] = ("facts", "identity")
    """Labels that are read."""
    ridge: float = 1.0
    """Weight of the squared norm of the probe, per row [inferred]."""
    images: int = 2
    """Pictures per entity and question; 0 = all."""

    def __post_init__(self) -> None:
        """Reject a probe without regularisation, which would be underdetermined."""
        super().__post_init__()
        require_values(self, "attack", targets=None, images=0)
        if self.ridge <= 0:
            raise UserError(f"attack.ridge must be positive, got {self.ridge}.")

    def quick(self) -> Self:
        """Return one picture per entity and question."""
        return replace(self, images=1)

    def run(self, victim: Victim) -> Iterator[Finding]:
        """Read every target from every layer."""
        splits = {target: self._split(victim, target) for target in self.targets}
        usable_splits = {target: split for target, split in splits.items() if all(split)}
        if not usable_splits:
            raise UserError(
                "Nothing can be probed: no fact of a forgotten entity has a value that a retained one shares and others do not, "
                "or fewer than two forgotten entities have both training and held-out pictures."
            )
        if skipped := [target for target in self.targets if target not in usable_splits]:
            note_once(f"probes: the data lack what {' and '.join(skipped)} would be read by, so not read")
        loaded = victim.open()
        texts = [answer.text for answer in ask(loaded, probed_rows(victim.benchmark, 1))]
        for target, (fit_rows, test_rows) in usable_splits.items():
            yield from self._read(loaded, target, fit_rows, test_rows, texts, victim.seed)

    def _split(self, victim: Victim, target: Target) -> tuple[list[Example], list[Example]]:
        """Return the rows to fit and to read."""
        training_rows = [row for row in victim.benchmark.examples("train") if row.image and row.answer]
        rows = [row for row in probed_rows(victim.benchmark, self.images) if row.answer]
        test_rows = [row for row in rows if row.role == Role.UNSEEN and row.image]
        if target == "identity":
            name_rows = [row for row in training_rows if row.role == Role.FORGET and row.kind == Kind.NAME]
            shared_entities = {row.entity for row in name_rows} & {
                row.entity for row in test_rows if row.kind == Kind.NAME
            }
            fit_rows = limit_rows([row for row in name_rows if row.entity in shared_entities], self.images)
            test_rows = [row for row in test_rows if row.kind == Kind.NAME and row.entity in shared_entities]
            return (fit_rows, test_rows) if len(shared_entities) > 1 else ([], [])
        fact_rows = [row for row in training_rows if row.role == Role.RETAIN and row.kind == Kind.FACT and _value(row)]
        fit_rows = limit_rows(fact_rows, self.images)
        values_by_fact = by_key((row.fact, _value(row)) for row in fit_rows)
        # of a fact with one value the question alone tells it
        values = {
            value for fact_values in values_by_fact.values() if len(set(fact_values)) > 1 for value in fact_values
        }
        test_rows = [row for row in test_rows if row.kind == Kind.FACT and _value(row) in values]
        tested_facts = {row.fact for row in test_rows}
        return [row for row in fit_rows if row.fact in tested_facts], test_rows

    def _read(
        self,
        loaded: VLM,
        target: Target,
        fit_rows: Sequence[Example],
        test_rows: Sequence[Example],
        texts: Sequence[str],
        seed: int,
    ) -> Iterator[Finding]:
        label_of = _identity if target == "identity" else _value
        layers = common_layers(loaded.model)
        fit_states, test_states = (_states(loaded, rows, layers) for rows in (fit_rows, test_rows))
        shuffled_labels = _shuffle_labels(fit_rows, [label_of(row) for row in fit_rows], seed)
        for index, layer in enumerate(layers):
            predicted, control_predicted = (
                _ridge_classes(fit_states[index], labels, test_states[index], self.ridge)
                for labels in ([label_of(row) for row in fit_rows], shuffled_labels)
            )
            hits, control_hits = (
                [prediction == label_of(row) for prediction, row in zip(labels, test_rows, strict=True)]
                for labels in (predicted, control_predicted)
            )
            further = {"random labels": sum(control_hits) / len(control_hits), **left_off(loaded.model)}
            yield finding(target, test_rows, hits, texts, layer, further)


def _shuffle_labels(rows: Sequence[Example], labels: Sequence[str], seed: int) -> list[str]:
    """Return the labels shuffled within each fact, which is known from the question."""
    indices_by_fact = by_key((row.fact, index) for index, row in enumerate(rows))
    shuffled, rng = list(labels), Random(seed)
    for indices in indices_by_fact.values():
        permuted = rng.sample(indices, len(indices))
        for index, source_index in zip(indices, permuted, strict=True):
            shuffled[index] = labels[source_index]
    return shuffled


def _ridge_classes(raw_fit_nd: Tensor, labels: Sequence[str], raw_test_nd: Tensor, ridge: float) -> list[str]:
    """Return the classes of the test rows by ridge regression to one-hot labels."""
    classes = sorted(set(labels))
    mean_d, std_d = raw_fit_nd.mean(0), raw_fit_nd.std(0, correction=0).clamp_min(1e-6)
    fit_nd, test_nd = ((states_nd - mean_d) / std_d for states_nd in (raw_fit_nd, raw_test_nd))
    targets_nc = one_hot(torch.tensor([classes.index(label) for label in labels]), len(classes)).double()
    offset_c = targets_nc.mean(0)
    kernel_nn = fit_nd @ fit_nd.T + ridge * len(labels) * torch.eye(len(labels), dtype=torch.float64)
    weights_nc = torch.linalg.solve(kernel_nn, targets_nc - offset_c)
    scores_nc = test_nd @ fit_nd.T @ weights_nc + offset_c
    return [classes[class_index] for class_index in scores_nc.argmax(1).tolist()]


def _states(loaded: VLM, rows: Sequence[Example], layers: Sequence[int]) -> Tensor:
    """Return the states at the last token of the prompt [layers, n, d], on the CPU."""
    states = []
    for row in rows:
        fed_row = teacher_forced(loaded, row)
        last_position = slice(fed_row.before.start, fed_row.before.start + 1)
        states_by_layer = layer_states(loaded.model, fed_row, last_position)
        states.append(torch.stack([states_by_layer[layer][0] for layer in layers]))
    return torch.stack(states, 1).double().cpu()


def _value(row: Example) -> str:
    """Return the fact and its value, or an empty string where the row has none."""
    forms = row.private.get(row.fact, ())
    return f"{row.fact}: {forms[0]}" if forms else ""


def _identity(row: Example) -> str:
    return row.entity
