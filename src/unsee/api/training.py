"""Optimisation settings shared by all methods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from unsee.api.finite import require_finite
from unsee.errors import UserError, short_repr

Part = Literal["vision", "projector", "language"]
Tune = Literal["lora", "full"]
Quantization = Literal["none", "nf4", "int8"]
"""How the linear layers of a frozen base are held."""
_HIGHEST_RANK: Final = 16_384
"""Highest LoRA rank; above the narrower side of a layer it adds weights and no freedom."""
_ROBUST: Final = ("robust_draws", "robust_attack_steps")
"""Counts of the robust wrappers."""
_ROBUST_SETTINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "sam": ("robust_rho",),
    "smoothing": ("robust_sigma", "robust_draws"),
    "averaging": ("robust_mix",),
    "lat": ("robust_layer", "robust_radius", "robust_attack_steps"),
}
"""Wrapper -> its settings."""
_MOST: Final = 10**9
"""Largest count that is accepted."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """Optimisation settings. Defaults after PUBG (arXiv 2506.02541), ours where it is silent."""

    tune: Tune = "lora"
    """Train adapters, or the weights themselves."""
    parts: tuple[Part, ...] = ("language",)
    """Which parts of the model are trainable: vision, projector, language."""
    rank: int = 8
    """LoRA rank."""
    alpha: int = 16
    """LoRA scale: the update is alpha / rank · B A."""
    adapter: str = ""
    """Folder of an adapter with the same base, parts, rank and alpha to continue from; empty = a new one. The
    reference model remains the base without adapter."""
    dropout: float = 0.0
    """LoRA dropout; above 0 the adapter-off reference no longer equals the original model in train mode."""
    lr: float = 1e-4
    """Peak learning rate of AdamW."""
    epochs: int = 10
    """Passes over the forget examples, at most."""
    max_steps: int = -1
    """Optimiser steps, at most; -1 = as many as `epochs` needs."""
    batch_size: int = 4
    """Forget examples per step and device; the retain batch has the same size."""
    by_image: bool = False
    """Put questions about one image into one batch, where they share its prefix, forward and backward: several times
    faster with several questions per image, but batches are less mixed than independent draws."""
    accumulate: int = 1
    """Batches per optimiser step."""
    weight_decay: float = 0.0
    clip: float = 1.0
    """Global gradient norm; 0 = off."""
    scheduler: Literal["linear", "cosine", "constant"] = "linear"
    warmup_steps: int = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16 = autocast over fp32 trainable weights; auto = bf16 on GPUs that have it, else fp32. A float16 base is converted to
    that type."""
    quantization: Quantization = "none"
    """Hold the linear layers of the frozen base in few bits (QLoRA, arXiv 2305.14314): `nf4` in 4 by bitsandbytes, `int8` in 8 by
    torchao; needs LoRA."""
    gradient_checkpointing: bool = False
    stop: Literal["forgotten", "never"] = "forgotten"
    """`forgotten`: stop at the first check with USR = 1 on the seen forget images (PUBG, arXiv 2506.02541); `never`: run all steps."""
    guard: Literal["none", "collapse"] = "none"
    """`collapse`: stop at the first check at which the loss on 32 retain answers has doubled, or a fifth more of 32 responses
    than at the start is empty or repetitive, and restore the weights of the check before (MMUnlearner, arXiv 2502.11051)."""
    robust: Literal["none", "sam", "smoothing", "averaging", "lat"] = "none"
    """Wrapper around the loss, against relearning (arXiv 2502.05374): `sam` takes the gradient of the forget terms where they
    are worst nearby, `smoothing` at noisy weights, `averaging` ends with the mean of the weights of all steps. `lat` takes it
    under the shift of hidden states that undoes most of the forgetting (latent adversarial training, arXiv 2407.15549)."""
    robust_rho: float = 0.01
    """`sam`: distance over all trained weights; 0 = plain. 0.01 in most published runs [code]."""
    robust_sigma: float = 1e-4
    """`smoothing`: standard deviation of the noise on every trained weight; 0 = plain. 1e-4 in published runs [code]."""
    robust_draws: int = 3
    """`smoothing`: noisy gradients per step, averaged; 3 in published runs [code]."""
    robust_mix: float = 1.0
    """`averaging`: share of the mean in the final weights; 0 = the last step's weights. Below 1 is ours [inferred]."""
    robust_layer: int = -1
    """`lat`: decoder layer whose output is shifted, from 0; -1 = the middle one [inferred]."""
    robust_radius: float = 0.1
    """`lat`: largest length of a shift, as a share of the state's length; 0 = plain [inferred]."""
    robust_attack_steps: int = 4
    """`lat`: steps of the attack, each a pass of the forget terms [inferred]."""
    check_every: int = 0
    """Optimiser steps between checks of the stop rule and of the guard; 0 = once per epoch. The guard also checks
    the last step."""
    checkpoint_every: int = 0
    """Optimiser steps between resumable checkpoints; 0 = once per epoch."""
    max_new_tokens: int = 256
    """Length limit of every generated answer."""
    report_to: tuple[str, ...] = ()
    """Trackers that receive the losses of every step: tensorboard, trackio, wandb, mlflow, ...; log.jsonl is always written."""

    def __post_init__(self) -> None:
        """Reject values that no run could use."""
        require_finite(self, "training")
        self._require_counts()
        non_negative = (
            "check_every checkpoint_every warmup_steps weight_decay clip lr robust_rho robust_sigma robust_radius"
        )
        for name in non_negative.split():
            if getattr(self, name) < 0:
                raise UserError(f"training.{name} must not be negative, got {getattr(self, name)}.")
        if self.max_steps != -1 and self.max_steps < 1:
            raise UserError(
                f"training.max_steps must be at least 1, or -1 for as many as the epochs need, got {self.max_steps}."
            )
        if not 0 <= self.dropout < 1:
            raise UserError(f"training.dropout must be in [0, 1), got {self.dropout}.")
        if not 0 <= self.robust_mix <= 1:
            raise UserError(f"training.robust_mix must be in [0, 1], got {self.robust_mix}.")
        if self.robust == "averaging" and self.guard != "none":
            raise UserError(
                "training.robust=averaging has no single step to go back to, which training.guard would do. Turn one of them off."
            )
        if self.robust == "lat" and self.gradient_checkpointing:
            raise UserError(
                "training.robust=lat follows forward passes by their order, and training.gradient_checkpointing repeats some "
                "of them. Turn one of them off."
            )
        self._require_adapters()
        if not self.parts or set(self.parts) - {"vision", "projector", "language"}:
            raise UserError(f"training.parts must name some of vision, projector, language; got {self.parts!r}.")

    def idle(self, *, adapters: bool = False, checks: bool = True) -> Iterator[tuple[str, str]]:
        """Yield the settings without effect beside the others, each with what it counts with.

        Args:
            adapters: Whether the method trains adapters of its own with full tuning, too.
            checks: Whether anything but the guard is checked while training.
        """
        if self.tune == "full" and not adapters:
            for name in ("rank", "alpha", "dropout"):
                yield f"training.{name}", "with training.tune=lora"
        for robust, names in _ROBUST_SETTINGS.items():
            if self.robust != robust:
                yield from ((f"training.{name}", f"with training.robust={robust}") for name in names)
        if self.robust == "smoothing" and not self.robust_sigma:
            yield "training.robust_draws", "with training.robust_sigma above 0"
        if self.robust == "lat" and not self.robust_radius:
            yield "training.robust_attack_steps", "with training.robust_radius above 0"
        if self.guard == "none" and not checks:
            yield (
                "training.check_every",
                "with training.stop=forgotten and a method that obeys it, or with training.guard=collapse",
            )

    def _require_adapters(self) -> None:
        """Raise for settings that need LoRA."""
        if self.adapter and self.tune != "lora":
            raise UserError("training.adapter goes on from an adapter, so it needs training.tune=lora.")
        if self.quantization != "none" and self.tune != "lora":
            raise UserError(
                f"training.quantization={self.quantization} holds weights that no gradient can change, so only adapters train "
                "beside them: use --tune lora, or leave quantization out."
            )

    def _require_counts(self) -> None:
        """Raise for counts that are no counts, or that no machine could hold."""
        for name in ("rank", "alpha", "epochs", "batch_size", "accumulate", "max_new_tokens", *_ROBUST):
            if getattr(self, name) < 1:
                raise UserError(f"training.{name} must be at least 1, got {getattr(self, name)}.")
            if getattr(self, name) > _MOST:
                raise UserError(f"training.{name} must be at most {_MOST:,}, got {short_repr(getattr(self, name))}.")
        if self.rank > _HIGHEST_RANK:
            raise UserError(
                f"training.rank must be at most {_HIGHEST_RANK:,}, got {self.rank:,}: a rank above the width of a layer adds "
                "weights and no freedom. Common ranks are 4 to 256."
            )
