"""Student: start from shrunk weights with noise (UNDO, arXiv 2506.06278), and stop rule."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn import Linear, Module
from transformers import TrainerCallback

from unsee.api import Session, Training
from unsee.api.request import Target
from unsee.distributed.fsdp import gathered_weights
from unsee.inference.batching import Batch, collate
from unsee.models.auto import evaluating
from unsee.training.precision import autocast
from unsee.training.trainable import trainable
from unsee.utils.seeds import seed_of


def shrink(model: Module, training: Training, share: float, noise: float, located: str, seed: int) -> int:
    """Shrink the trained matrices in place and return their number of weights.

    Full tuning: W becomes (1 - share) W + share * noise * N, N Xavier-uniform. Embeddings, norms and biases stay, since what is
    rare in the training rows could not be learnt again [inferred].
    LoRA: the adapter starts as minus `share` times the `rank` largest singular components of W, so that the original stays the
    adapter-off model [inferred].

    Args:
        model: Model prepared for training.
        training: Settings, of which `parts` and `rank` say what is trained.
        share: Share of the weights that is taken away, 0 to 1; 0 = change nothing.
        noise: Scale of the noise put in its place, relative to Xavier's.
        located: Regular expression, searched in module names, for what is shrunk; empty = all that is trained.
        seed: Seed of the noise.
    """
    if not share:
        return 0
    with torch.no_grad():
        if isinstance(model, PeftModel):
            return _shrink_adapters(model, training, share, noise, located, seed)
        return _shrink_matrices(model, share, noise, located, seed)


def _shrink_matrices(model: Module, share: float, noise: float, located: str, seed: int) -> int:
    count = 0
    for name, weight in trainable(model).items():
        module_name = name.rpartition(".")[0]
        if (
            isinstance(model.get_submodule(module_name), Linear)
            and weight.dim() == 2
            and re.search(located, module_name)
        ):
            weight.mul_(1 - share).add_(share * noise * xavier(weight, seed_of(seed, "noise", name)))
            count += weight.numel()
    return count


def _shrink_adapters(model: Module, training: Training, share: float, noise: float, located: str, seed: int) -> int:
    count = 0
    scale = training.alpha / training.rank
    weights = dict(model.named_parameters())
    for name, down_rd in trainable(model).items():
        if ".lora_A." not in name or not re.search(located, name.partition(".lora_A.")[0]):
            continue
        up_or = weights[name.replace(".lora_A.", ".lora_B.")]
        base_od = weights[f"{name.partition('.lora_A.')[0]}.base_layer.weight"]
        left_or, size_r, right_rd = torch.linalg.svd(base_od.float(), full_matrices=False)
        rank = min(len(down_rd), len(size_r))
        root_r = (share * size_r[:rank] / scale).sqrt()
        down_rd.zero_()
        up_or.zero_()
        down_rd[:rank] = root_r[:, None] * right_rd[:rank]
        up_or[:, :rank] = -left_or[:, :rank] * root_r
        down_rd.add_(share * noise * xavier(down_rd, seed_of(seed, "noise", name)))
        count += down_rd.numel() + up_or.numel()
    return count


def xavier(weight: Tensor, seed: int) -> Tensor:
    """Return Xavier-uniform noise of the shape of a matrix, the same for the same seed."""
    rows, columns = weight.shape
    bound = math.sqrt(6 / (rows + columns))
    generator = torch.Generator().manual_seed(seed)
    noise = (2 * torch.rand(rows, columns, generator=generator) - 1) * bound
    return noise.to(weight.device, weight.dtype)


class KeptStop(TrainerCallback):  # type: ignore[misc]
    """End training once the student is close to the original model on retained answers."""

    def __init__(
        self, session: Session, probes: Sequence[Target], gap: Callable[[Batch], Tensor], limit: float, every: int
    ) -> None:
        """Measure `gap` on these answers after every so many steps."""
        self.session, self.probes, self.gap, self.limit, self.every = session, probes, gap, limit, every

    def on_step_end(self, _args: object, state: Any, control: Any, **_: object) -> None:
        """Measure where a check is due."""
        if state.global_step % self.every:
            return
        model = self.session.model
        with torch.no_grad(), evaluating(model), gathered_weights(model), autocast(model, self.session.training):
            kept_gap = float(self.gap(collate(self.session, self.probes)))
        self.session.notes["kept_gap"] = round(kept_gap, 5)
        control.should_training_stop = control.should_training_stop or kept_gap <= self.limit
