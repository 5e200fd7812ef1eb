"""Loading and saving of checkpoints: Hugging Face, PEFT adapter and unsee run folders."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch
from peft import PeftModel
from safetensors import SafetensorError, safe_open
from torch.nn import Module
from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoConfig, AutoTokenizer

from unsee.api import VLM, Family, Quantization
from unsee.api.fast_paths import Name, engine_named
from unsee.distributed import processes
from unsee.errors import UserError, short_repr, unknown_name
from unsee.models import auto, builtin, quantized_base
from unsee.models.location import (
    ADAPTER,
    SIDECAR,
    adapter_base,
    base_missing,
    folder_of,
    is_steered,
    read_sidecar,
    require_no_circle,
)
from unsee.models.steering import hooks
from unsee.utils.files import atomic_folder, atomic_write_json, is_public, remove_file
from unsee.utils.parsing import read_object, require_fetched

ADAPTER_WEIGHTS = "adapter_model.safetensors"
_POINTER_SIZE = 1024
"""Size in bytes below which a file may be a git-lfs pointer."""
_OLD_NAMES = re.compile(
    r"(?:^|\.)language_model\.model\.|^(?:visual|vision_tower|multi_modal_projector|language_model)\."
)
"""Module names of transformers before version 4.52."""
_EMBEDDINGS = re.compile(r"(?:embed_tokens|lm_head)\.(?:modules_to_save\.)?weight$")
"""Adapter weights that replace the base's embeddings."""


def open_model(path: Path | str, *, dtype: str = "auto", above: Sequence[Path] = (), quantized: bool = False) -> VLM:
    """Open a Hugging Face folder or id, a PEFT adapter folder, or a run folder.

    Adapters are merged into the weights, so that "adapter off" in a later run is this checkpoint and not its ancestor.
    An adapter that was trained on a quantised base is merged into the dequantised weights, with which it was trained.

    Args:
        path: Folder, or id on the hub.
        dtype: Floating-point type of the weights; `auto` is the checkpoint's.
        above: Folders of the adapters that this is the base of.
        quantized: Keep a quantised base quantised and the adapter unmerged: less memory, for inference only.

    Raises:
        UserError: No vision-language model, or files that are missing or damaged.
    """
    folder = folder_of(path)
    require_whole(folder)
    if isinstance(folder, Path) and (folder / ADAPTER).exists():
        return _open_adapter(folder, read_sidecar(folder), dtype, above, quantized=quantized)
    family, instruction = family_of(folder), _instruction(folder)
    model, processor = family.load(folder, dtype=dtype)
    hooks.attach_all(model, folder)
    return VLM(model=model, processor=processor, family=family, instruction=instruction)


def open_switchable(path: Path | str) -> tuple[VLM, VLM] | None:
    """Open an adapter folder unmerged, and return its base and itself, which share one model.

    Inside `model.disable_adapter()` the model is the base. None where the two cannot be one model: no adapter folder, an
    adapter with embeddings of its own, a steered model, a quantised base (whose weights differ from the original).
    """
    folder = folder_of(path)
    require_whole(folder)
    if not isinstance(folder, Path) or not (folder / ADAPTER).exists():
        return None
    _require_weights(folder)
    unswitchable = is_steered(folder) or _quantization(read_sidecar(folder)) != "none"
    if unswitchable or any(map(_EMBEDDINGS.search, _shapes(folder))):
        return None
    with _standing_on(folder, ()) as base_path:
        base = open_model(base_path, above=(folder.resolve(),))
    if hooks.steerings_of(base.model):
        return None
    model = _with_adapter(base.model, folder).eval()
    adapter_vlm = replace(base, model=model, base=base_path, **_processor_and_instruction(folder, base))
    return replace(base, model=model), adapter_vlm


def open_config(path: Path | str, *, above: Sequence[Path] = ()) -> VLM:
    """Open like `open_model`, but without weights and adapters.

    For use in `without_weights`.
    """
    folder = folder_of(path)
    require_whole(folder)
    if isinstance(folder, Path) and (folder / ADAPTER).exists():
        with _standing_on(folder, above) as base_path:
            base = open_config(base_path, above=(*above, folder.resolve()))
        return replace(base, **_processor_and_instruction(folder, base))
    family = family_of(folder)
    model, processor = family.load(folder)
    return VLM(model=model, processor=processor, family=family, instruction=_instruction(folder))


def require_whole(folder: Path | str) -> None:
    """Raise if a file of a local checkpoint is a git-lfs pointer, or one of its configs is not JSON.

    transformers leaves damaged generation settings out without a word.
    """
    if not isinstance(folder, Path):
        return
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.stat().st_size < _POINTER_SIZE:
            require_fetched(file)
    for name in ("config.json", "generation_config.json", ADAPTER):
        if (folder / name).is_file():
            read_object(folder / name)


@contextmanager
def _standing_on(folder: Path, above: Sequence[Path]) -> Iterator[str]:
    """Open the base of an adapter. Errors name the adapter."""
    base = adapter_base(folder)
    require_no_circle(folder, above)
    is_local = builtin.name_of(base) or Path(base).exists()
    try:
        yield base
    except UserError as error:
        if is_local:
            raise
        raise base_missing(folder, base, error) from error


def save_model(
    model: Module,
    processor: Any,
    folder: Path,
    *,
    instruction: str = "",
    base: Path | str | None = None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Save weights (adapter or full), processor, steering files and sidecar.

    The sidecar keeps a packaged model's name, which any installation resolves. PEFT's adapter_config.json takes folders
    and ids only, so it gets the current folder.

    Args:
        model: Model, or a PEFT model, of which only the adapter is written.
        processor: Its processor.
        folder: Target folder, written atomically; replaces an earlier one that was saved here.
        instruction: Text that precedes every question to this model.
        base: Checkpoint an adapter was trained on, as given by the user; None = what the adapter records.
        facts: Further entries of the sidecar.
    """
    base_path = None if base is None else _absolute(builtin.resolve(base))
    base_name = base_path if base is None else builtin.name_of(base) or base_path
    if isinstance(model, PeftModel):
        adapter: Any = model.peft_config["default"]
        adapter.base_model_name_or_path = base_path or str(adapter.base_model_name_or_path)
    with atomic_folder(folder) as temporary:
        _write_weights(model, temporary)
        kind = quantized_base.kind_of(model)
        low_bits = {} if kind == "none" else {"quantization": kind}
        processor.save_pretrained(temporary)
        hooks.save_all(model, temporary)
        atomic_write_json(
            temporary / SIDECAR, {"instruction": instruction, "base": base_name, **low_bits, **(facts or {})}
        )


def _write_weights(model: Any, folder: Path) -> None:
    """Write the adapter, or all weights of a model without one."""
    options = {"save_embedding_layers": False} if isinstance(model, PeftModel) else {}
    with auto.quiet(folder):
        model.save_pretrained(folder, **options)
    remove_file(folder / "README.md")  # PEFT's card, which shows paths of this machine


def _absolute(path: Path | str) -> str:
    """Return an absolute path. Ids stay as they are."""
    return str(Path(path).resolve() if Path(path).exists() else path)


def public_files(folder: Path) -> list[Path]:
    """Return the files of a model folder that may be published, by name.

    Raises:
        UserError: One of them is a link, which could lead to any file of this machine.
    """
    files = sorted(path for path in folder.iterdir() if is_public(path.name))
    if links := [path.name for path in files if path.is_symlink() or not path.is_file()]:
        raise UserError(f"{', '.join(links)} in {folder} is a link or no file. Put the file itself there.")
    return files


def family_of(path: Path | str) -> Family:
    """Return the family of the checkpoint's model type, else the generic one."""
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    except Exception as error:  # whatever the values of a config.json make transformers raise
        auto.refuse_code(path, error)
        hint = "" if Path(path).exists() else ", and no folder here"
        raise UserError(
            f"{path} is no model that transformers can open{hint}: {error}. Look at its config.json."
        ) from error
    return family_of_config(config, path)


def family_of_config(config: Any, path: Path | str) -> Family:
    """Return the family of a model's configuration. `path` names the model in errors."""
    if quantization := vars(config).get("quantization_config"):
        kind = quantization.get("quant_method", "") if isinstance(quantization, dict) else ""
        raise UserError(
            f"The weights of {path} are quantised ({short_repr(kind)}), and quantised weights can neither be tuned in full nor take "
            "a merged adapter. Give the original checkpoint, whose config.json has no quantization_config; "
            "training.quantization=nf4 or int8 then holds it in few bits."
        )
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise UserError(
            f"Expected a vision-language model (transformers' AutoModelForImageTextToText), but {path} holds a "
            f"{config.model_type!r} model. Give a checkpoint that takes images and text."
        )
    return auto.family_for(config.model_type)


def _with_adapter(model: Any, folder: Path) -> PeftModel:
    """Apply the adapter. Weights without a counterpart are an error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft)\b")  # PEFT's, not ours
        warnings.filterwarnings("error", message=".*Found missing adapter keys")
        try:
            adapted: PeftModel = PeftModel.from_pretrained(model, folder)
        except torch.OutOfMemoryError:
            raise
        # Warnings turned into errors above, and whatever adapter_config.json makes PEFT raise.
        except Exception as error:
            raise UserError(_no_place(model, folder, error)) from error
    if not hasattr(adapted.base_model, "merge_and_unload"):
        kind = adapted.peft_config["default"].peft_type
        raise UserError(
            f"The adapter in {folder} is of the kind {kind}, which cannot be merged into the weights of its base. Give one that "
            "can, such as LoRA."
        )
    _require_all_used(adapted, folder)
    return adapted


def _no_place(model: Module, folder: Path, error: Exception) -> str:
    """Return why an adapter does not fit the model."""
    modules = {name for name, _ in model.named_modules()}
    module_names = [name.removeprefix("base_model.model.").partition(".lora_")[0] for name in _shapes(folder)]
    old_names = [name for name in module_names if name not in modules and _OLD_NAMES.search(name)]
    if old_names:
        return (
            f"The adapter in {folder} was made for module names of older transformers ({old_names[0]}). Merge it there "
            "(`merge_and_unload`) and save the whole model, or rename the weights and target_modules to today's names."
        )
    return (
        f"The adapter in {folder} does not fit its base: {type(error).__name__}: {str(error)[:300]}. If it was made for another "
        f"model, nothing of it would act; check {ADAPTER} and the base."
    )


def _shapes(folder: Path) -> dict[str, list[int]]:
    """Return names and shapes of an adapter's weights."""
    with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as weights:
        return {name: list(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118 - no mapping


def _require_weights(folder: Path) -> None:
    """Raise if an adapter has no readable weights."""
    file = folder / ADAPTER_WEIGHTS
    if file.is_file():
        try:
            _shapes(folder)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file} is damaged or cut off ({error}). Copy or download the adapter again.") from error
        return
    pickles = [path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth")]
    hint = f" It has {', '.join(pickles)}, a pickle, which can run code when it is read." if pickles else ""
    raise UserError(f"The adapter in {folder} has no {ADAPTER_WEIGHTS}.{hint} Save it again as safetensors.")


def _fit_embeddings(base: VLM, folder: Path) -> VLM:
    """Resize the base's embeddings to the adapter's, and load the adapter's tokenizer."""
    sizes = {shape[0] for name, shape in _shapes(folder).items() if _EMBEDDINGS.search(name) and len(shape) == 2}
    inner: Any = base.model
    current_size = int(inner.get_input_embeddings().weight.shape[0])
    if not sizes or sizes == {current_size}:
        return base
    has_tokenizer = (folder / "tokenizer.json").is_file() or (folder / "tokenizer_config.json").is_file()
    if len(sizes) > 1 or not has_tokenizer:
        raise UserError(
            f"The adapter in {folder} was saved with {' and '.join(map(str, sorted(sizes)))} embeddings, its base has {current_size}. "
            "Save the tokenizer that it was trained with beside it, or give the base that was resized."
        )
    inner.resize_token_embeddings(sizes.pop(), mean_resizing=False)
    if not (folder / "processor_config.json").exists():
        base.processor.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return base


def _require_all_used(adapted: PeftModel, folder: Path) -> None:
    """Raise if LoRA weights in the file were not loaded, which PEFT ignores silently."""
    file = folder / ADAPTER_WEIGHTS
    if not file.is_file():
        return
    with safe_open(file, framework="pt") as weights:
        saved_count = sum("lora_" in name for name in weights.keys())  # noqa: SIM118 - no mapping
    loaded_count = sum("lora_" in name for name in adapted.state_dict())
    if saved_count > loaded_count:
        raise UserError(
            f"The adapter in {folder} holds {saved_count} LoRA weights, but its config has a place for {loaded_count} only; the others "
            "would not act. Check target_modules in adapter_config.json."
        )


def _open_adapter(folder: Path, sidecar: dict[str, Any], dtype: str, above: Sequence[Path], *, quantized: bool) -> VLM:
    """Open the base (which may be an adapter itself), then merge the adapter, or put it on the quantised base."""
    _require_weights(folder)
    kind = _quantization(sidecar)
    quantized_base.require(kind)
    unmerged = quantized and kind != "none"
    with _standing_on(folder, above) as base_path, auto.on_cpu() if unmerged else nullcontext():
        base = open_model(base_path, dtype=dtype, above=(*above, folder.resolve()))
    base = _fit_embeddings(base, folder)
    if unmerged:
        quantized_base.quantize(base.model, kind, processes.device())
    elif kind != "none":
        quantized_base.round_trip(base.model, kind)
    adapted = _with_adapter(base.model, folder)
    if sidecar:  # then the folder holds all steering artefacts, its base's included
        hooks.detach(base.model)
        hooks.attach_all(base.model, folder)
    model = adapted if unmerged else adapted.merge_and_unload()
    return replace(base, model=model.eval(), base=base_path, **_processor_and_instruction(folder, base))


def _quantization(sidecar: Mapping[str, Any]) -> Quantization:
    """Return how the base of an adapter was held in training."""
    kind: Any = sidecar.get("quantization", "none")
    if kind not in get_args(Quantization):
        raise unknown_name("quantization", str(kind), get_args(Quantization))
    quantization: Quantization = kind
    return quantization


def _processor_and_instruction(folder: Path, base: VLM) -> dict[str, Any]:
    """Return processor and instruction of an adapter folder, the base's where it has none."""
    processor = auto.load_processor(folder) if (folder / "processor_config.json").exists() else base.processor
    return {"processor": processor, "instruction": _instruction(folder, base.instruction)}


def _instruction(folder: Path | str, default: str = "") -> str:
    """Return the text that precedes every question, from the sidecar."""
    return str(read_sidecar(folder).get("instruction", default))


def load(model: Path | str, *, dtype: str = "auto", quantization: Quantization = "none", engine: Name = "fast") -> VLM:
    """Open a model folder, hub id, run folder or built-in model.

    Args:
        model: Its folder, id or name.
        dtype: Type of the weights, as transformers names them; auto = that of the checkpoint.
        quantization: Bits that linear layers are held in after opening; none = all.
        engine: `fast`, or `plain` for the same results without the fast paths.

    Returns:
        Model (adapters merged), processor and family.
    """
    return replace(_open_quantized(model, dtype, quantization), engine=engine_named(engine))


def _open_quantized(model: Path | str, dtype: str, quantization: Quantization) -> VLM:
    if quantization == "none":
        return open_model(builtin.resolve(model), dtype=dtype)
    quantized_base.require(quantization)
    with auto.on_cpu():
        vlm = open_model(builtin.resolve(model), dtype=dtype)
    quantized_base.quantize(vlm.model, quantization, processes.device())
    return vlm
