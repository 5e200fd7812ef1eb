"""RMU: move hidden states of forget answers to a random vector (arXiv 2403.03218).

Representation misdirection for unlearning of Li et al., section 4; code https://github.com/centerforaisafety/wmdp.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn import Module

from unsee.api import Method, Session, Training
from unsee.errors import UserError
from unsee.inference.batching import Batch, collate
from unsee.losses import per_sample, squared_distance_loss
from unsee.methods.common.down_projections import DOWN
from unsee.methods.common.idle import idle_term
from unsee.methods.common.layer_states import StartStates, answer_states
from unsee.methods.common.reference_model import CHUNK, as_start
from unsee.models.steering.hooks import common_layer, common_layers, decoder_layers
from unsee.training.targets import forget_targets, retain_targets
from unsee.training.trainable import trainable
from unsee.training.trainer import Parts, minimise, plan_batches, required
from unsee.utils.seeds import seed_of
from unsee.utils.terminal import note_once

LAYER: Final = 7
"""Layer of the published runs with 7B models [code]."""


@dataclass(frozen=True, kw_only=True)
class RMU(Method):
    """Push the hidden states of the forget answers to a random vector, and hold those of the retain answers."""

    layer: int = -1
    """Decoder layer whose output is moved, from 0; -1 = 7 [code], or the middle of a model with fewer [inferred]."""
    coefficient: float = 20.0
    """Length c of the random vector; the record has the usual length of a state, for comparison. Published: 2 to 300 [code]."""
    forget_weight: float = 1.0
    """Weight of the forget term."""
    retain_weight: float = 1.0
    """Weight of the distance from the reference model's states on the retain answers; 0 = none."""
    update: Literal["down_proj", "all"] = "down_proj"
    """Train the second MLP matrix of the layer and the two below [code], or all of `training.parts`."""

    def idle(self, training: Training) -> Iterator[tuple[str, str]]:  # noqa: ARG002 - the contract
        """Yield the settings without effect beside the others."""
        yield from idle_term(self.forget_weight, "forget_weight", ("coefficient",))

    def unlearn(self, session: Session) -> None:
        """Minimise both distances."""
        layer = self._chosen_layer(session.model)
        if self.update == "down_proj":
            _freeze_others(session.model, layer)
            if parts := [part for part in session.training.parts if part != "language"]:
                note_once(
                    f"training.parts={','.join(parts)} is not trained: method.update=down_proj trains decoder layers alone."
                )
        targets, retain_answers = forget_targets(session), retain_targets(session, self.retain_weight)
        start = StartStates(
            session, plan_batches(session, targets, retain_answers).met() if retain_answers else [], layer
        )
        control_d = self._control(session)
        session.notes["rmu"] = {"layer": layer, "coefficient": self.coefficient, "norm": _norm(session, layer)}

        def objective(forget: Batch, retain: Batch | None) -> Iterator[Parts]:
            states_bad, labels_ba = answer_states(session.model, forget, layer)
            forget_distance = squared_distance_loss(states_bad, control_d.to(states_bad.device), labels_ba)
            yield {"loss": self.forget_weight * forget_distance, "rmu": forget_distance}
            if self.retain_weight:
                retain = required(retain)
                states_bad, labels_ba = answer_states(session.model, retain, layer)
                retain_distance = squared_distance_loss(states_bad, start(retain), labels_ba)
                yield {"loss": self.retain_weight * retain_distance, "retain_rmu": retain_distance}

        minimise(session, objective, forget=targets, retain=retain_answers)

    def _chosen_layer(self, model: Module) -> int:
        """Return the layer whose output is moved. It is one that every question passes."""
        if self.layer != -1:
            return common_layer(model, self.layer, "method.layer")
        layers = common_layers(model)
        return LAYER if LAYER in layers else layers[len(layers) // 2]

    def _control(self, session: Session) -> Tensor:
        """Return c u, u a unit vector with the direction of a uniform draw from [0, 1]^d [paper; code]."""
        width = int(session.model.config.get_text_config().hidden_size)  # type: ignore[union-attr,operator]
        generator = torch.Generator().manual_seed(seed_of(session.seed, "rmu"))
        drawn_d = torch.rand(width, generator=generator)
        return self.coefficient * drawn_d / vector_norm(drawn_d)


def _norm(session: Session, layer: int) -> float:
    """Return the mean length of the reference model's states at up to 32 forget answers."""
    batch = collate(session, [*forget_targets(session)[:CHUNK]])
    with as_start(session.model):
        states_bad, labels_ba = answer_states(session.model, batch, layer)
    return round(float(per_sample(vector_norm(states_bad.float(), dim=-1), labels_ba).mean()), 4)


def _freeze_others(model: Module, layer: int) -> None:
    """Leave only the second MLP matrices of the layer and the two below trainable.

    Raises:
        UserError: None of them is among the trainable weights.
    """
    layers = decoder_layers(model)
    down_weights = {
        weight
        for layer_index in range(max(0, layer - 2), layer + 1)
        for name, weight in layers[layer_index].named_parameters()
        if DOWN.search(name) and weight.requires_grad
    }
    if not down_weights:
        raise UserError(
            f"method.update=down_proj finds no trainable down projection in the decoder layers up to {layer}. Train "
            "training.parts=language, or set method.update=all."
        )
    for weight in trainable(model).values():
        weight.requires_grad_(weight in down_weights)
