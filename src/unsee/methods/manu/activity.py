"""Activity of MLP neurons, summed over tokens.

Shapes: b rows, t tokens, n neurons of a module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import Linear, Module

from unsee.api import Example, Session
from unsee.api.request import Target
from unsee.compat.probes import trying
from unsee.errors import UserError
from unsee.inference.batching import Batch, collate
from unsee.losses import IGNORE
from unsee.methods.common.layer_states import without_logits
from unsee.methods.common.reference_model import CHUNK, as_start
from unsee.training.precision import autocast

EPS = 1e-8
Read = Literal["inputs", "outputs"]
"""Activations of a module: its inputs at the answer tokens, or its outputs at every token."""


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
    def none(cls, neurons: int, device: torch.device) -> Activity:
        """Return sums over no tokens."""
        zeros = [torch.zeros(neurons, dtype=torch.float64, device=device) for _ in range(4)]
        return cls(0, *zeros)

    def add(self, states_tn: Tensor, threshold: float) -> None:
        """Add the activations of tokens to the sums."""
        states_tn = states_tn.double()
        self.tokens += len(states_tn)
        self.size_n += states_tn.abs().sum(0)
        self.sum_n += states_tn.sum(0)
        self.square_n += states_tn.square().sum(0)
        self.active_n += (states_tn.abs() > threshold).sum(0)


def importance(multi: Activity, text: Activity) -> Tensor:
    """Return I(D, n), four contrasts of activity with and without the image, summed.

    As in arXiv 2502.15910:
    |Z_m - Z_t| / (Z_m + Z_t) with Z the mean |z|; the same of the number of active tokens; sqrt(V_m + V_t) with V the mean
    of (z - Z)^2; the root of the contrast of the sums of z^2. Without tokens all are 0, as for a vision tower without image
    [inferred].
    """
    means = [activity.size_n / max(1, activity.tokens) for activity in (multi, text)]
    variances = [
        (activity.square_n - 2 * mean * activity.sum_n) / max(1, activity.tokens)
        + (mean.square() if activity.tokens else 0)
        for activity, mean in zip((multi, text), means, strict=True)
    ]
    return (
        _contrast(*means)
        + _contrast(multi.active_n, text.active_n)
        + (variances[0] + variances[1]).clamp_min(0).sqrt()
        + _contrast(multi.square_n, text.square_n).sqrt()
    )


def _contrast(a_n: Tensor, b_n: Tensor) -> Tensor:
    """Return |a - b| / (a + b + eps) of numbers that are not negative."""
    return (a_n - b_n).abs() / (a_n + b_n + EPS)


def neuron_activity(
    session: Session,
    examples: Sequence[Example],
    modules: Mapping[str, Linear],
    vision_names: set[str],
    threshold: float,
    read: Read = "inputs",
    limit: float = torch.inf,
) -> dict[str, Activity]:
    """Return the activity of every module on the examples' own answers.

    In the language model the sums are over the answer tokens, which are the same with and without the image, or with "outputs"
    over all tokens; in the vision tower (`vision_names`) over all patches [inferred].

    Args:
        session: Model, examples and settings of the run.
        examples: Rows whose own answers are run through the original model.
        modules: Name -> linear layer whose activations are summed.
        vision_names: Names of the modules in the vision tower.
        threshold: Magnitude above which a neuron counts as active at a token.
        read: Activations to sum: the modules' inputs or outputs.
        limit: Activations are clamped to +/- this value.
    """
    activities = {
        name: Activity.none(module.in_features if read == "inputs" else module.out_features, module.weight.device)
        for name, module in modules.items()
    }

    def add(name: str, states_tn: Tensor) -> None:
        activities[name].add(states_tn.clamp(-limit, limit), threshold)

    with as_start(session.model), autocast(session.model, session.training):
        for start in range(0, len(examples), CHUNK):
            targets = [Target(example=example) for example in examples[start : start + CHUNK]]
            for _, batch in collate(session, targets).kinds:
                with _reading(batch, modules, vision_names, add, read):
                    session.model(**batch.inputs, **without_logits(session.model), use_cache=False)
    return activities


@contextmanager
def _reading(
    batch: Batch, modules: Mapping[str, Linear], vision_names: set[str], add: Callable[[str, Tensor], None], read: Read
) -> Iterator[None]:
    """Pass the modules' inputs or outputs in the block to `add`."""
    counted_bt = batch.labels_bt != IGNORE if read == "inputs" else batch.inputs["attention_mask"].bool()

    def note(name: str, states: Tensor) -> None:
        if trying():
            return
        if name in vision_names:
            states = states.flatten(0, -2)
        elif states.shape[:-1] == counted_bt.shape:
            states = states[counted_bt]
        else:
            raise UserError(f"manu reads MLPs that see every token of a batch, which {name} of this model does not.")
        add(name, states)

    def called(name: str, _: Module, args: tuple[Any, ...], output: Tensor) -> None:
        note(name, args[0] if read == "inputs" else output)

    with ExitStack() as hooks:
        for name, module in modules.items():
            hooks.enter_context(module.register_forward_hook(partial(called, name)))
        yield
