"""MANU as in its published code, with separate scores per layer.

The code is prune/prune_utility.py of https://github.com/franciscoliu/MANU. Its algorithm is not the paper's: activity with and
without the image is not compared; a neuron's activity on forget examples is divided by that on retain examples. The published
hooks pool all layers under the names of three, so that these get the same scores; here every layer has its own.
Shapes: n output features of a matrix.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import Linear, Module

from unsee.api import Example, Session
from unsee.methods.common.down_projections import DOWN
from unsee.methods.manu.activity import Activity, neuron_activity

LAST: Final = 3
"""Layers from the end that are pruned [code]."""
LIMIT: Final = 1e3
"""Activations are cut at plus and minus this [code]."""
EPS: Final = 1e-5
"""Added to the retain activity [code]."""
_UP: Final = re.compile(r"(?:^|\.)(?:up_proj|gate_proj|fc1|linear_fc1|w1|w3|c_fc)(?:$|\.)")
_LAYER: Final = re.compile(r"\.(\d+)\.")


def matrices(model: Module, part: str) -> dict[str, Linear]:
    """Return all MLP matrices of the last three layers of a part, by name.

    Args:
        model: The model.
        part: Regular expression of a part, of `Family.parts`.
    """
    candidates = {
        name: (int(layer[1]), module)
        for name, module in model.named_modules()
        if isinstance(module, Linear)
        and (DOWN.search(name) or _UP.search(name))
        and re.fullmatch(part, name)
        and (layer := _LAYER.search(name))
    }
    last_layers = sorted({layer for layer, _ in candidates.values()})[-LAST:]
    return {name: module for name, (layer, module) in candidates.items() if layer in last_layers}


def activity(
    session: Session, examples: Sequence[Example], modules: Mapping[str, Linear], *, seen: bool
) -> dict[str, Activity]:
    """Return the activity of the matrices' outputs, at every token or (`seen`) patch.

    Args:
        session: Model, examples and settings of the run.
        examples: Rows whose own answers are run through the original model.
        modules: Name -> linear layer, all of them inside or all outside the vision tower.
        seen: Whether they are those of the vision tower.
    """
    return neuron_activity(
        session, examples, modules, set(modules) if seen else set(), 0.0, read="outputs", limit=LIMIT
    )


def score(forget: Activity, retain: Activity) -> Tensor:
    """Return score_n = sum of w (F / (R + 1e-5) - 1) over three statistics.

    These are mean |z|, variance and root mean square, each of weight 2 [code]. The frequency of |z| above a threshold has weight 0 in the published code.
    """
    pairs = zip(_statistics(forget), _statistics(retain), strict=True)
    return torch.stack([2 * (forget_n / (retain_n + EPS) - 1) for forget_n, retain_n in pairs]).sum(0)


def _statistics(sums: Activity) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean |z|, variance and root mean square over tokens."""
    count = max(1, sums.tokens)
    mean_n, square_n = sums.sum_n / count, sums.square_n / count
    return sums.size_n / count, (square_n - mean_n.square()).clamp_min(0), square_n.sqrt()


def prune(modules: Mapping[str, Linear], scores: Mapping[str, Tensor], share: float) -> dict[str, Any]:
    """Zero the output rows with the highest scores, and return counts per matrix.

    Scores are ranked over all matrices together; biases are zeroed too [inferred].
    """
    pruned = highest({name: scores[name] for name in modules}, share)
    with torch.no_grad():
        for name, module in modules.items():
            for weight in (module.weight, module.bias):
                if weight is not None:
                    weight[pruned[name].to(weight.device)] = 0
    return counts(pruned)


def highest(scores: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Return whether each score is in the highest share of all, at least one, by matrix."""
    all_scores = torch.cat([scores_n.cpu() for scores_n in scores.values()])
    is_highest = torch.zeros(len(all_scores), dtype=torch.bool)
    is_highest[all_scores.topk(max(1, round(share * len(all_scores)))).indices] = True
    return dict(zip(scores, is_highest.split([len(scores_n) for scores_n in scores.values()]), strict=True))


def counts(pruned: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the number of neurons, and of zeroed ones by matrix, for the record."""
    return {
        "neurons": sum(len(pruned_n) for pruned_n in pruned.values()),
        "zeroed": {name: int(pruned_n.sum()) for name, pruned_n in pruned.items()},
    }
