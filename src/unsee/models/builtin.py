"""Built-in models: names, folders and integrity. Loads no torch."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Final

from unsee.errors import UserError, unknown_name
from unsee.utils.files import is_too_long

CHECKPOINTS: Path = Path(__file__).parents[1] / "lab" / "checkpoints"
HASHES: Final = "hashes.json"
"""SHA-256 of the weights, by checkpoint name."""
PACKAGED: Final[tuple[str, ...]] = tuple(json.loads((CHECKPOINTS / HASHES).read_text(encoding="utf-8")))
"""Names of the built-in models."""
STAGES: Final = {name: name[name.index("gold") :] for name in PACKAGED if "gold" in name}
"""Names in reports of built-in models that are not originals."""
TOWER: Final = "lab-gold"
"""Built-in checkpoint whose vision tower the models in parts have: it never saw their forget entities."""


MADE: Final = b"2"
"""Version of the checkpoints assembled from parts; a change rebuilds them."""


def checkpoint(name: str) -> Path:
    """Return the folder of a built-in checkpoint, after checking the hash of its weights.

    One that is packaged in parts is put together at its first use, in the user's cache.

    Raises:
        UserError: It is incomplete or damaged, or the language model that it needs is not installed.
    """
    folder = packaged_folder(name)
    return _assembled_folder(folder) if in_parts(name) else folder


def in_parts(name: str) -> bool:
    """Tell whether a built-in model is packaged as adapter and projector only."""
    return not (CHECKPOINTS / name / "config.json").is_file()


def packaged_folder(name: str) -> Path:
    """Return the packaged folder of a built-in model, after checking the hash of its weights."""
    hashes: dict[str, str] = json.loads((CHECKPOINTS / HASHES).read_text(encoding="utf-8"))
    if name not in hashes:
        raise unknown_name("packaged model", name, hashes)
    weights = CHECKPOINTS / name / "model.safetensors"
    if not weights.is_file():
        raise UserError(f"The packaged model {name!r} is incomplete: {weights} is missing. Install unsee again.")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    if digest != hashes[name]:
        raise UserError(
            f"The packaged model {name!r} is damaged: SHA-256 {digest}, expected {hashes[name]}. Install unsee again."
        )
    return CHECKPOINTS / name


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "unsee" / "models"


def _assembled_folder(parts: Path) -> Path:
    """Return the whole checkpoint of a model that is packaged in parts, building it if missing."""
    content = [MADE, *(file.read_bytes() for file in sorted(parts.iterdir()))]
    digest = hashlib.sha256(b"".join(content)).hexdigest()
    folder = _cache() / digest[:16] / parts.name
    if not (folder / "config.json").is_file():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            _assemble(parts, folder)
        except OSError as error:
            raise UserError(
                f"{parts.name} is put together with its language model in {folder} (270 MB), which failed: {error}. "
                "Set XDG_CACHE_HOME to a folder that can be written."
            ) from error
    return folder


def _assemble(parts: Path, folder: Path) -> None:
    from filelock import FileLock  # not above: `unsee doctor` reads the names where packages may be broken

    from unsee.models import half_precision, smollm2
    from unsee.utils.terminal import note_once

    with FileLock(folder.with_suffix(".lock")):
        if (folder / "config.json").is_file():  # by another process, meanwhile
            return
        model, processor = smollm2.merged_model(parts, packaged_folder(TOWER))
        note_once(f"{parts.name} is put together with its language model, once ({folder})")
        texts = {name: (parts / name).read_text(encoding="utf-8") for name in ("exam.json", "world.json")}
        half_precision.save_half(model, processor, folder, texts)


def name_of(model: Path | str) -> str:
    """Return the name of a built-in model (its name, or its folder in any installation).

    A folder that exists and lies elsewhere than in this installation is that folder, and no packaged model.
    """
    if str(model) in PACKAGED:
        return str(model)
    path = Path(model)
    in_installation = path.parent.resolve() == CHECKPOINTS.resolve() or path.parents[1:2] == (_cache(),)
    looks_packaged = path.parts[-4:-1] == ("unsee", "lab", "checkpoints") or path.parts[-4:-2] == ("unsee", "models")
    is_outdated = looks_packaged and not path.exists()
    return path.name if path.name in PACKAGED and (in_installation or is_outdated) else ""


def resolve(model: Path | str) -> Path | str:
    """Return the folder of a built-in model for its name or an outdated folder, else `model`."""
    name = name_of(model)
    return checkpoint(name) if name else model


def absolute_or_name(model: str) -> str:
    """Return an absolute path. Names (built-in or hub) and "" stay as they are."""
    is_name = not model or model in PACKAGED or is_too_long(model) or not Path(model).exists()
    return model if is_name else str(Path(model).resolve())
