"""Checkpoints for other programs: adapters merged into the weights, or alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import AutoConfig

from unsee.errors import UserError
from unsee.models import builtin, model_card
from unsee.models.checkpoint import open_model, public_files, save_model
from unsee.models.location import ADAPTER, SIDECAR, adapter_base, folder_of, is_steered
from unsee.utils.files import atomic_write_json, atomic_write_text, is_own, require_space
from unsee.utils.parsing import read_object


def write_merged(run: Path | str, out: Path) -> list[Path]:
    """Write the whole checkpoint of a run or adapter.

    Plain `AutoModelForImageTextToText` opens it.

    Adapters are merged in the precision of loading (fp32 on a CPU); weights are stored in the type that the base has.
    """
    loaded = open_model(run)
    dtype = _dtype(run)
    size = sum(weight.numel() for weight in loaded.model.parameters()) * dtype.itemsize
    require_space(out, size + 2**26, f"the checkpoint in {out}")
    save_model(loaded.model.to(dtype), loaded.processor, out, instruction=loaded.instruction)
    _write_card(run, out, whole=True)
    return _files(out)


def adapter(run: Path | str, out: Path) -> list[Path]:
    """Write the adapter of a run alone.

    `PeftModel.from_pretrained(base, out)` opens it, on the base that it names.
    """
    folder = folder_of(run)
    if not isinstance(folder, Path) or not (folder / ADAPTER).exists():
        raise UserError(f"{run} has no adapter (it was tuned in full, or not at all); export it --to merged.")
    base = adapter_base(folder)
    base_folder = folder_of(base)
    if isinstance(base_folder, Path) and (base_folder / ADAPTER).exists():
        raise UserError(
            f"{run} was trained on {base}, which is an adapter itself, and PEFT puts one adapter on a whole model. "
            "Export it --to merged."
        )
    if is_steered(folder):
        raise UserError(
            f"{run} is steered while it answers, which PEFT cannot do. Export it --to merged (or push it with --merged): whole "
            "weights with their steering, for unsee to open."
        )
    out.mkdir(parents=True, exist_ok=True)
    for file in public_files(folder):
        if file.name not in (SIDECAR, ADAPTER):
            shutil.copyfile(file, out / file.name)
    base_name = str(Path(base_folder).resolve()) if isinstance(base_folder, Path) else base_folder
    atomic_write_json(out / ADAPTER, {**read_object(folder / ADAPTER), "base_model_name_or_path": base_name})
    _write_card(run, out, whole=False)
    return _files(out)


def base_of(run: Path | str) -> str:
    """Return the base of an adapter run (public name or folder), or "" for whole checkpoints."""
    folder = folder_of(run)
    if not isinstance(folder, Path) or not (folder / ADAPTER).exists():
        return ""
    base = adapter_base(folder)
    return builtin.name_of(base) or base


def _dtype(run: Path | str) -> torch.dtype:
    """Return the dtype of the stored weights below all adapters."""
    folder = folder_of(run)
    if isinstance(folder, Path) and (folder / ADAPTER).exists():
        return _dtype(adapter_base(folder))
    dtype: torch.dtype = AutoConfig.from_pretrained(folder, trust_remote_code=False).dtype or torch.float32
    return dtype


def _write_card(run: Path | str, out: Path, *, whole: bool) -> None:
    """Write the card if `run` is a run folder."""
    if (Path(run) / "run.yaml").is_file():
        atomic_write_text(out / model_card.CARD, model_card.card(Path(run), whole=whole))


def _files(out: Path) -> list[Path]:
    return sorted(path for path in out.rglob("*") if path.is_file() and not is_own(path))
