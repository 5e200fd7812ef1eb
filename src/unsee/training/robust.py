"""Wrappers around any loss, for forgetting that survives relearning.

They are SAM, smoothing, averaging and latent attacks.
Source of the first three: arXiv 2502.05374 and its code, https://github.com/OPTML-Group/Unlearn-Smooth; of the last:
`unsee.training.latent`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import Module, Parameter

from unsee.api import Session, Training
from unsee.distributed import processes
from unsee.errors import UserError
from unsee.inference.batching import Batch
from unsee.models.steering.hooks import common_layer, common_layers, decoder_layers
from unsee.training.latent import Latent
from unsee.training.trainable import trainable
from unsee.utils.files import follow_umask
from unsee.utils.seeds import seed_of

AVERAGE: Final = "average.safetensors"
"""File of the mean weights in a checkpoint."""
KEPT_SIDE: Final = ("retain_", "decouple_")
"""Prefixes of the names of retain terms."""
Terms = Callable[[], Iterator[dict[str, Tensor]]]
"""Makes the terms of an objective on one batch, each computed when it is asked for."""
Changed = Callable[[], AbstractContextManager[None]]
"""Enters a block in which the model is changed."""
Backward = Callable[[Iterable[dict[str, Tensor]], int], dict[str, Tensor]]
"""Backpropagates terms one by one, each divided by the number, and returns their detached sums."""


class Perturbed:
    """Gradients of the forget terms at a shifted model, and of all other terms at the model.

    Terms on retain answers (named `retain_*` or `decouple_*`) stand after the others in every objective. An objective
    in one piece, which has parts of both kinds in one term, is shifted as a whole [inferred].
    """

    def __init__(self, session: Session) -> None:
        self.session, self.training = session, session.training
        self.layer = (
            _attacked_layer(session.model, self.training.robust_layer) if self.training.robust == "lat" else None
        )
        self.forget_terms: int | None = None

    def backpropagate(self, terms: Terms, backward: Backward, batch: Batch, share: int) -> dict[str, Tensor]:
        """Add the gradient of the wrapped objective and return the values of its terms.

        Args:
            terms: Makes the terms of the objective on the batch, once per call.
            backward: Adds the gradients of terms.
            batch: Forget batch, whose index seeds the noise.
            share: Number of batches that one optimiser step accumulates.

        Raises:
            UserError: The objective has no forget term, or one after a retain term.
        """
        if self.forget_terms is None:
            self.forget_terms = _forget_terms(terms, self.training.robust)
        perturbations = self._blocks(terms, backward, batch)
        parts: dict[str, Tensor] = {}
        retain_parts: dict[str, Tensor] = {}
        for index, perturbation in enumerate(perturbations):
            all_terms = terms()
            with perturbation():
                values = backward(islice(all_terms, self.forget_terms), share * len(perturbations))
            parts = _mean(parts, values, index)
            if index == len(perturbations) - 1:
                retain_parts = backward(all_terms, share)
        losses = [group["loss"] for group in (parts, retain_parts) if group]
        return {**parts, **retain_parts, "loss": torch.stack(losses).sum()}

    def _blocks(self, terms: Terms, backward: Backward, batch: Batch) -> list[Changed]:
        """Return the changes of the model under which the forget terms are taken."""
        training, model = self.training, self.session.model
        weights = list(trainable(model).values())
        if self.layer is not None:
            latent = Latent(self.layer, training.robust_radius)
            latent.attack(
                partial(_gradients, terms, backward, weights, self.forget_terms), training.robust_attack_steps
            )
            return [latent.applied]
        if training.robust == "sam":
            shift = sam_shift(_gradients(terms, backward, weights, self.forget_terms), training.robust_rho)
            return [partial(shifted, weights, shift)]
        seeds = [seed_of(self.session.seed, "smoothing", batch.index, draw) for draw in range(training.robust_draws)]
        return [partial(_noisy, weights, training.robust_sigma, seed) for seed in seeds]


def _attacked_layer(model: Module, layer: int) -> Module:
    """Return the decoder layer whose output is attacked, the middle one for -1."""
    layers = common_layers(model)
    index = layers[(len(layers) - 1) // 2] if layer == -1 else common_layer(model, layer, "training.robust_layer")
    return decoder_layers(model)[index]


def extra_bytes(training: Training) -> int:
    """Return the memory that a wrapper takes beside a plain step, in bytes per trained weight.

    `sam` and `smoothing` hold a shift and the weights before it, `averaging` the mean and, in checks, the weights beside it.
    """
    return 8 if training.robust in ("sam", "smoothing", "averaging") else 0


class Average:
    """Running mean of the weights after every step, used in checks and at the end.

    The equal weight of all steps is stochastic weight averaging (arXiv 1803.05407, algorithm 1 with c = 1).
    """

    def __init__(self, model: Module, mix: float) -> None:
        self.model, self.mix = model, mix
        self.mean: dict[str, Tensor] = {}

    def update(self, step: int) -> None:
        """Take in the weights after this step, the first of which is 1."""
        for name, weight in trainable(self.model).items():
            value = weight.detach()
            self.mean[name] = self.mean[name].lerp_(value, 1 / step) if name in self.mean else value.clone()

    def apply(self) -> None:
        """Move the weights `mix` of the way to the mean."""
        with torch.no_grad():
            for name, mean in self.mean.items():
                self.model.get_parameter(name).lerp_(mean, self.mix)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Apply the mean for the block."""
        saved = {name: self.model.get_parameter(name).detach().clone() for name in self.mean}
        self.apply()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, weight in saved.items():
                    self.model.get_parameter(name).copy_(weight)

    def save(self, folder: Path) -> None:
        """Write the mean beside the weights of a checkpoint."""
        if self.mean and processes.is_main():
            save_file({name: mean.contiguous() for name, mean in self.mean.items()}, folder / AVERAGE)
            follow_umask(folder / AVERAGE)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote."""
        weights = trainable(self.model)
        self.mean = {name: mean.to(weights[name].device) for name, mean in load_file(folder / AVERAGE).items()}


@contextmanager
def shifted(weights: Sequence[Parameter], shift: Sequence[Tensor]) -> Iterator[None]:
    """Add a shift to the weights for the block, and restore their exact bits afterwards."""
    saved = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, delta in zip(weights, shift, strict=True):
            weight.add_(delta)
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, original in zip(weights, saved, strict=True):
                weight.copy_(original)


@contextmanager
def _noisy(weights: Sequence[Parameter], sigma: float, seed: int) -> Iterator[None]:
    """Add noise to the weights for the block."""
    with shifted(weights, noise(weights, sigma, seed)):
        yield


def _gradients(terms: Terms, backward: Backward, weights: Sequence[Parameter], count: int | None) -> list[Tensor]:
    """Return the gradients of the first terms, and restore those that the weights had."""
    saved_grads = [weight.grad for weight in weights]
    for weight in weights:
        weight.grad = None
    try:
        backward(islice(terms(), count), 1)
        return [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
    finally:
        for weight, grad in zip(weights, saved_grads, strict=True):
            weight.grad = grad


def sam_shift(grads: Sequence[Tensor], rho: float) -> list[Tensor]:
    """Return rho * g / ||g||, the norm over all weights, or 0 if g is 0.

    Sharpness-aware minimisation, arXiv 2010.01412, equation 2.
    """
    norm = torch.nn.utils.get_total_norm(list(grads))
    scale = torch.where(norm > 0, rho / norm, torch.zeros_like(norm))
    return [grad * scale.to(grad.device) for grad in grads]


def noise(weights: Sequence[Parameter], sigma: float, seed: int) -> list[Tensor]:
    """Return normal noise of standard deviation sigma for every weight, fixed by the seed."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (sigma * torch.randn(weight.shape, generator=generator)).to(weight.device, weight.dtype) for weight in weights
    ]


def _forget_terms(terms: Terms, robust: str) -> int:
    """Return the number of terms before the first retain term.

    Random streams are left as they were.
    """
    with torch.random.fork_rng(), torch.no_grad():
        retain_flags = [[name.startswith(KEPT_SIDE) for name in term if name != "loss"] for term in terms()]
    combine = all if len(retain_flags) == 1 else any  # a lone term with parts of both kinds is the whole objective
    is_retain = [bool(flags) and combine(flags) for flags in retain_flags]
    if all(is_retain):
        raise UserError(
            f"training.robust={robust} wraps forget terms, and this method has none: the parts of all its terms are named "
            "retain_* or decouple_*. Leave training.robust out."
        )
    if is_retain != sorted(is_retain):
        raise UserError(
            f"training.robust={robust} wraps the forget terms, which must come before terms with parts named retain_* or "
            "decouple_*. Yield them first, or leave training.robust out."
        )
    return is_retain.count(False)


def _mean(parts: dict[str, Tensor], values: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """Return the running mean of the values of terms."""
    return {name: (parts[name] * count + value) / (count + 1) if count else value for name, value in values.items()}
