"""Choice of trainable weights: LoRA on, or all weights of, the chosen model parts."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.nn import Linear, Module, Parameter

from unsee.api import Family, Training
from unsee.distributed import processes
from unsee.distributed.fsdp import full_tensor, is_sharded, local_shard, spread_like
from unsee.errors import TrainingError, UserError
from unsee.training.precision import half
from unsee.utils.files import PART, follow_umask, remove_file
from unsee.utils.parsing import read_object, require_fetched

WEIGHTS = "trainable.safetensors"
ADAPTER = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
_SCALE = ("r", "lora_alpha", "use_rslora", "alpha_pattern")
"""Entries of an adapter's configuration that its update is scaled by."""
HEAD = "lm_head"
"""Output head: part of language, but without an adapter (PUBG, arXiv 2506.02541)."""


def prepare(model: Module, family: Family, training: Training, seed: int) -> Module:
    """Make exactly the chosen weights trainable, and return a PeftModel for LoRA.

    Adapters and fully tuned weights are fp32 whatever the base's type.

    Args:
        model: Model without an adapter.
        family: Its family, which knows the modules of each part.
        training: Parts, LoRA or full tuning, rank, alpha and dropout.
        seed: Seed of the adapter's initial weights.

    Raises:
        UserError: No weight matches, or the model has an adapter already, so that its adapter-off state would not be the model
            that was given.
    """
    if isinstance(model, PeftModel):
        raise UserError("This model carries an adapter already; open it with `open_model`, which merges it first.")
    patterns = [_pattern(family, model, part) for part in training.parts]
    if next(model.parameters()).dtype is torch.float16:
        model = _without_float16(model, training)
    if training.tune == "lora":
        return _with_adapters(model, patterns, training, seed)
    chosen_names = {name for name in _modules(model) if _matches(name, patterns)}
    for name, module in model.named_modules():
        for weight in module.parameters(recurse=False):
            weight.requires_grad_(name in chosen_names)
    if not any(weight.requires_grad for weight in model.parameters()):
        raise _nothing(training)
    return model.float()


def trainable(model: Module) -> dict[str, Parameter]:
    """Return the trainable weights by name."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def trainable_bytes(model: Module) -> int:
    """Return the bytes of the trainable weights in fp32, in which they are kept."""
    return 4 * sum(weight.numel() for weight in trainable(model).values())


def summary(model: Module) -> dict[str, Any]:
    """Return the number of trainable weights and their modules (layer numbers as `*`)."""
    weights = trainable(model)
    modules = {re.sub(r"\.\d+(?=\.|$)", ".*", _owner(name)) for name in weights}
    return {"trainable": sum(weight.numel() for weight in weights.values()), "tuned": sorted(modules)}


def finite(model: Module) -> bool:
    """Tell whether every trainable weight is finite. Collective if weights are sharded.

    One fused maximum per device; the maximum of absolute values, for a sum of squares overflows long before a weight does.
    """
    weights = trainable(model).values()
    shards = [shard for shard in (local_shard(weight.detach()) for weight in weights) if shard.numel()]
    largest = torch.nn.utils.get_total_norm(shards, norm_type=torch.inf) if shards else torch.zeros(())
    is_finite = bool(torch.isfinite(largest))
    return all(processes.all_gather(is_finite)) if any(map(is_sharded, weights)) else is_finite


def require_finite(model: Module) -> None:
    """Raise if a trainable weight is not finite. Collective if weights are sharded."""
    if not finite(model):
        raise TrainingError("Some trained weights are not finite numbers. Nothing was saved; lower training.lr.")


def save_trainable(model: Module, folder: Path) -> None:
    """Write the trainable weights atomically (safetensors). Collective, rank 0 writes."""
    weights = {name: full_tensor(weight).detach().contiguous().clone() for name, weight in trainable(model).items()}
    if processes.is_main():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{WEIGHTS}{PART}"
        try:
            save_file(weights, temporary)
            follow_umask(temporary)
            temporary.replace(folder / WEIGHTS)
        finally:
            remove_file(temporary)


def load_trainable(model: Module, folder: Path) -> None:
    """Load saved weights into the trainable ones. Names must match exactly."""
    saved = load_file(folder / WEIGHTS)
    weights = trainable(model)
    if saved.keys() != weights.keys():
        differing = sorted(saved.keys() ^ weights.keys())
        raise UserError(
            f"{folder} was written by a run that tuned other weights (e.g. {differing[0]}); use its settings."
        )
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(spread_like(saved[name], weight))


def _without_float16(model: Module, training: Training) -> Module:
    """Return the model in a dtype that can be trained.

    float16 would need loss scaling, and cannot be combined with bf16 autocast.
    """
    if half(training):
        return model.bfloat16()
    return model if training.quantization != "none" else model.float()


def _with_adapters(model: Module, patterns: Sequence[str], training: Training, seed: int) -> PeftModel:
    """Add LoRA to the linear layers of the parts, listed by full name."""
    targets = [
        name
        for name, module in model.named_modules()
        if isinstance(module, Linear) and _matches(name, patterns) and name.rpartition(".")[2] != HEAD
    ]
    if not targets:
        raise _nothing(training)
    config = LoraConfig(
        r=training.rank,
        lora_alpha=training.alpha,
        lora_dropout=training.dropout,
        target_modules=rf"(?:{'|'.join(map(re.escape, targets))})",
    )
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="TorchaoLoraLinear was instantiated")  # merging is open_model's
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft)\b")  # PEFT's, not ours
        torch.manual_seed(seed)
        adapted = get_peft_model(model, config, autocast_adapter_dtype=True)
    if training.adapter:
        _go_on_from(adapted, training)
    return adapted


def _go_on_from(model: PeftModel, training: Training) -> None:
    """Load a saved adapter into the new one. Names, shapes and scale must match exactly."""
    folder = Path(training.adapter)
    file = next((parent / ADAPTER for parent in (folder, folder / "model") if (parent / ADAPTER).is_file()), None)
    if file is None:
        raise UserError(f"training.adapter: no {ADAPTER} in {folder}. Give the run folder of an earlier LoRA run.")
    require_fetched(file)
    try:
        saved = load_file(file)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"training.adapter: {file} is damaged or cut off ({error}). Give another run folder."
        ) from error
    current = get_peft_model_state_dict(model, save_embedding_layers=False)
    if {name: weight.shape for name, weight in saved.items()} != {
        name: weight.shape for name, weight in current.items()
    }:
        raise UserError(f"training.adapter: {file} has other layers or another rank than this run; use its settings.")
    _require_scale(file.with_name(CONFIG), training)
    set_peft_model_state_dict(model, saved)


def _require_scale(file: Path, training: Training) -> None:
    """Raise if the saved update was scaled by another factor than alpha / rank."""
    saved = LoraConfig(**{name: value for name, value in read_object(file).items() if name in _SCALE})
    scale = saved.lora_alpha / (math.sqrt(saved.r) if saved.use_rslora else saved.r)
    expected = training.alpha / training.rank
    if scale != expected or saved.alpha_pattern:
        factor = "alpha_pattern" if saved.alpha_pattern else f"{scale:g}"
        raise UserError(
            f"training.adapter: {file} scales its update by {factor}, and this run by alpha / rank = {expected:g}. "
            "Set training.alpha as it was, or give another adapter."
        )


def _pattern(family: Family, model: Module, part: str) -> str:
    patterns: dict[str, str] = {str(name): pattern for name, pattern in family.parts(model).items()}
    if part not in patterns:
        raise UserError(f"This model has no part {part!r} that could be tuned; it has {', '.join(patterns)}.")
    return patterns[part]


def _modules(model: Module) -> list[str]:
    return [name for name, _ in model.named_modules()]


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def _nothing(training: Training) -> UserError:
    hint = (
        " LoRA needs linear layers, which these parts do not have; use --tune full." if training.tune == "lora" else ""
    )
    return UserError(
        f"training.parts = {training.parts} with tune = {training.tune!r} matches no weight of this model.{hint}"
    )


def _owner(name: str) -> str:
    """Strip wrappers and the weight's name: `base_model.model.x.q.lora_A.weight` -> `x.q`."""
    stripped = name.removeprefix("base_model.model.")
    return re.split(r"\.lora_|\.(?:weight|bias|class_embedding)$", stripped)[0]
