"""Location of model folders: Hugging Face folder, adapter, run folder or hub id. Loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from unsee import config
from unsee.config import paths
from unsee.errors import UserError
from unsee.models import builtin

ADAPTER: Final = "adapter_config.json"


def folder_of(path: Path | str) -> Path | str:
    """Return the folder with the weights: `path`, or `model` in a run folder. Ids unchanged."""
    path = builtin.resolve(path)
    folder = Path(path)
    if not folder.exists():
        local = folder.is_absolute() or str(path).startswith((".", "~")) or str(path).count("/") != 1
        if local or paths.is_here(str(path)):
            raise UserError(
                f"No model at {path}: expected a run folder, a folder with config.json, a hub id like owner/name, or one of "
                f"{', '.join(builtin.PACKAGED)}.{paths.near(path, builtin.PACKAGED)}"
            )
        return str(path)
    for candidate in (folder, folder / "model"):
        if candidate != folder:
            config.require_ended(folder)
        if (candidate / "config.json").exists() or (candidate / ADAPTER).exists():
            return candidate
    raise UserError(f"No model in {path}: expected config.json (or {ADAPTER}) there or in its folder `model`.")
