"""The embedded lab: a small drawn world, and two tiny LLaVA models that ship with the package.

`lab` knows everybody; `lab-gold` was trained by the same recipe without the people of the default deletion request.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from unsee.errors import UserError, unknown_name

CHECKPOINTS = Path(__file__).parent / "checkpoints"
HASHES = "hashes.json"
"""SHA-256 of the weights, by name of the checkpoint."""


def checkpoint(name: str) -> Path:
    """Return the folder of a packaged checkpoint, after comparing the hash of its weights."""
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
