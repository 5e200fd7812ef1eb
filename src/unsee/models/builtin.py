"""Built-in models: names, folders and integrity. Loads no torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Final

from unsee.errors import UserError, unknown_name

PACKAGED: Final = ("lab", "lab-gold", "lab-gold-picture", "lab-documents")
"""Names of the built-in models."""
STAGES: Final = {"lab-gold": "gold", "lab-gold-picture": "gold-picture"}
"""What reports call built-in models that are no original."""
CHECKPOINTS: Path = Path(__file__).parents[1] / "lab" / "checkpoints"
HASHES: Final = "hashes.json"
"""SHA-256 of the weights, by checkpoint name."""


def checkpoint(name: str) -> Path:
    """Return the folder of a built-in checkpoint, after checking the hash of its weights."""
    hashes: dict[str, str] = json.loads((CHECKPOINTS / HASHES).read_text(encoding="utf-8"))
    if name not in hashes:
        raise unknown_name("packaged model", name, hashes)
    weights = CHECKPOINTS / name / "model.safetensors"
    if not weights.is_file():
        raise UserError(f"The packaged model {name!r} is incomplete: {weights} is missing. Install unsee again.")
    found = hashlib.sha256(weights.read_bytes()).hexdigest()
    if found != hashes[name]:
        raise UserError(
            f"The packaged model {name!r} is damaged: SHA-256 {found}, expected {hashes[name]}. Install unsee again."
        )
    return CHECKPOINTS / name


def name_of(place: Path | str) -> str:
    """Return the name of the built-in model at `place` (name, or folder of any installation).

    A folder that exists and lies elsewhere than in this installation is that folder, and no packaged model.
    """
    if str(place) in PACKAGED:
        return str(place)
    path = Path(place)
    here = path.parent.resolve() == CHECKPOINTS.resolve()
    gone = path.parts[-4:-1] == ("unsee", "lab", "checkpoints") and not path.exists()
    return path.name if path.name in PACKAGED and (here or gone) else ""


def resolve(place: Path | str) -> Path | str:
    """Return the folder of a built-in model for its name or an outdated folder, else `place`."""
    name = name_of(place)
    return checkpoint(name) if name else place


def absolute_or_name(place: str) -> str:
    """Return an absolute path. Names (built-in or hub) and "" stay as they are."""
    named = not place or place in PACKAGED or not Path(place).exists()
    return place if named else str(Path(place).resolve())
