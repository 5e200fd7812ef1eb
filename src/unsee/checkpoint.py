"""Opening and saving checkpoints: plain Hugging Face folders, PEFT adapter folders, unsee run folders."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from peft import PeftModel
from safetensors import safe_open
from torch.nn import Module
from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoConfig

from unsee import autoclasses, config, packaged, places, steering
from unsee.api import Family
from unsee.errors import UserError
from unsee.files import atomic_folder, atomic_write_json, remove_file

SIDECAR = "unsee.json"
ADAPTER = "adapter_config.json"
_PUBLIC = re.compile(
    r"(model|adapter_model|rmuse)[\w.-]*\.safetensors|(pytorch_model|model)\.safetensors\.index\.json"
    r"|(adapter_|generation_|preprocessor_|processor_|tokenizer_|video_preprocessor_|image_processor_)?config\.json"
    r"|(tokenizer|vocab|added_tokens|special_tokens_map|chat_template|unsee|rmuse(-\d+)?)\.json"
    r"|(tokenizer|spiece|sentencepiece\.bpe)\.model|merges\.txt|vocab\.txt|chat_template\.jinja|README\.md"
)
"""Names of files that make a model: weights, configs, tokenizer, processor, card and sidecar."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """An opened checkpoint; `model` is a plain model (adapters are merged), in eval mode."""

    model: Module
    processor: Any
    family: Family
    instruction: str
    """Text the checkpoint wants before every question; empty unless the run steers by prompt."""
    base: str | None
    """What an adapter folder was trained on, as written there; None for whole checkpoints."""


def open_model(path: Path | str, *, dtype: str = "auto") -> Loaded:
    """Open a Hugging Face folder or id, a PEFT adapter folder, or an unsee run folder.

    Raises UserError if it is no vision-language model. Adapters are merged into the weights, so that "adapter off"
    in a later run is this checkpoint and not its ancestor.
    """
    folder = folder_of(path)
    sidecar = read_sidecar(folder)
    if isinstance(folder, Path) and (folder / ADAPTER).exists():
        return _open_adapter(folder, sidecar, dtype)
    family = family_of(folder)
    model, processor = family.load(folder, dtype=dtype)
    steering.attach_all(model, folder)
    return Loaded(
        model=model, processor=processor, family=family, instruction=sidecar.get("instruction", ""), base=None
    )


def open_config(path: Path | str) -> tuple[Module, Any, Family]:
    """Return model, processor and family of what `open_model` opens, adapters left out; for use in `hollow.without_weights`."""
    folder = folder_of(path)
    if isinstance(folder, Path) and (folder / ADAPTER).exists():
        written = json.loads((folder / ADAPTER).read_text(encoding="utf-8"))["base_model_name_or_path"]
        return open_config(read_sidecar(folder).get("base") or written)
    family = family_of(folder)
    return (*family.load(folder), family)


def save_model(
    model: Module,
    processor: Any,
    folder: Path,
    *,
    instruction: str = "",
    base: Path | str | None = None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Save weights (adapter or full, safetensors), the processor beside them, what steers the model, and the sidecar.

    `folder` appears when everything is in it, and takes the place of an earlier one that was saved here.
    `facts` are further entries of the sidecar.
    `base` is the checkpoint an adapter was trained on, as given by the user. The sidecar keeps a packaged model's name,
    which any installation understands; PEFT's adapter_config.json, which knows folders and ids only, its folder of today.
    """
    absolute = None if base is None else _absolute(packaged.resolve(base))
    lasting = absolute if base is None else packaged.name_of(base) or absolute
    if isinstance(model, PeftModel):
        adapter: Any = model.peft_config["default"]
        adapter.base_model_name_or_path = absolute or str(adapter.base_model_name_or_path)
    with atomic_folder(folder) as part:
        _write_weights(model, part)
        processor.save_pretrained(part)
        steering.save_all(model, part)
        atomic_write_json(part / SIDECAR, {"instruction": instruction, "base": lasting, **(facts or {})})


def _write_weights(model: Any, folder: Path) -> None:
    """Write the adapter, or all weights of a model without one."""
    options = {"save_embedding_layers": False} if isinstance(model, PeftModel) else {}
    model.save_pretrained(folder, **options)
    remove_file(folder / "README.md")  # PEFT's card, which shows paths of this machine


def _absolute(place: Path | str) -> str:
    """Return a path that means the same from any working directory; ids stay as they are."""
    return str(Path(place).resolve() if Path(place).exists() else place)


def public_files(folder: Path) -> list[Path]:
    """Return the files of a model folder that belong to a model, by name; nothing else leaves this machine.

    Raises:
        UserError: One of them is a link, which could lead to any file of this machine.
    """
    files = sorted(path for path in folder.iterdir() if _PUBLIC.fullmatch(path.name))
    if links := [path.name for path in files if path.is_symlink() or not path.is_file()]:
        raise UserError(f"{', '.join(links)} in {folder} is a link or no file. Put the file itself there.")
    return files


def read_sidecar(folder: Path | str) -> dict[str, Any]:
    """Return what unsee wrote beside the weights; empty for foreign checkpoints."""
    file = Path(folder) / SIDECAR
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


def family_of(path: Path | str) -> Family:
    """Return the family that claims the checkpoint's model type, else the generic one."""
    try:
        found = AutoConfig.from_pretrained(path)
    except (OSError, ValueError, KeyError, StrictDataclassError) as error:
        place = "" if Path(path).exists() else ", and no folder here"
        raise UserError(f"{path} is no model that transformers can open{place}: {error}") from error
    if type(found) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise UserError(
            f"Expected a vision-language model (transformers' AutoModelForImageTextToText), but {path} holds a "
            f"{found.model_type!r} model. Give a checkpoint that takes images and text."
        )
    return autoclasses.family_for(found.model_type)


def folder_of(path: Path | str) -> Path | str:
    """Return the folder with the weights: `path` itself or, in a run folder, its `model`; hub ids pass unchanged."""
    path = packaged.resolve(path)
    folder = Path(path)
    if not folder.exists():
        local = folder.is_absolute() or str(path).startswith((".", "~")) or str(path).count("/") != 1
        if local or places.is_here(str(path)):
            raise UserError(
                f"No model at {path}: expected a run folder, a folder with config.json, a hub id like owner/name, or one of "
                f"{', '.join(packaged.PACKAGED)}.{places.near(path, packaged.PACKAGED)}"
            )
        return str(path)
    for candidate in (folder, folder / "model"):
        if candidate != folder:
            config.require_ended(folder)
        if (candidate / "config.json").exists() or (candidate / ADAPTER).exists():
            return candidate
    raise UserError(f"No model in {path}: expected config.json (or {ADAPTER}) there or in its folder `model`.")


def _adapted(model: Any, folder: Path) -> PeftModel:
    """Put the adapter on the model; weights that find no place would leave the base as it is, so they are an error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*Found missing adapter keys")
        try:
            adapted: PeftModel = PeftModel.from_pretrained(model, folder)
        except UserWarning as warning:
            raise UserError(
                f"The adapter in {folder} was made for another model: weights that its config names are not in its file "
                f"({str(warning)[:200]}). Nothing of it would act; check adapter_config.json and the base."
            ) from warning
    _require_all_used(adapted, folder)
    return adapted


def _require_all_used(adapted: PeftModel, folder: Path) -> None:
    """Raise if the file holds more LoRA weights than found a place: PEFT passes over the others without a word."""
    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        return
    with safe_open(file, framework="pt") as weights:
        written = sum("lora_" in name for name in weights.keys())  # noqa: SIM118 - no mapping
    placed = sum("lora_" in name for name in adapted.state_dict())
    if written > placed:
        raise UserError(
            f"The adapter in {folder} holds {written} LoRA weights, but its config has a place for {placed} only; the others "
            "would not act. Check target_modules in adapter_config.json."
        )


def _open_adapter(folder: Path, sidecar: dict[str, Any], dtype: str) -> Loaded:
    """Open the base (which may be an adapter itself), then merge the adapter."""
    written = json.loads((folder / ADAPTER).read_text(encoding="utf-8"))["base_model_name_or_path"]
    base = open_model(sidecar.get("base") or written, dtype=dtype)
    adapted = _adapted(base.model, folder)
    if sidecar:  # then the folder says everything that steers the model, its base's artefacts included
        steering.detach(base.model)
        steering.attach_all(base.model, folder)
    processor = autoclasses.load_processor(folder) if (folder / "processor_config.json").exists() else base.processor
    return Loaded(
        model=adapted.merge_and_unload().eval(),
        processor=processor,
        family=base.family,
        instruction=sidecar.get("instruction", base.instruction),
        base=str(sidecar.get("base") or written),
    )
