"""attacks.json: findings on one model, and where those on others are kept beside it. Loads no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from unsee.utils.parsing import read_object

ATTACKS: Final = "attacks.json"


def path_beside(file: Path, facts: Mapping[str, Any]) -> Path:
    """Return where the attacks of a call with other facts (model, data, seed, ...) are kept."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return file.with_name(f"{file.stem}-{digest[:10]}{file.suffix}")


def attacked_model(folder: Path) -> str:
    """Return the hash or the hub id of the model whose attacks stand in a folder, or empty without any."""
    facts = read_object(folder / ATTACKS).get("facts") if (folder / ATTACKS).is_file() else None
    return str(facts.get("model") or "unknown") if isinstance(facts, Mapping) else ""


def put_aside(folder: Path) -> None:
    """Move the attacks in a folder to where a later call with the same facts takes them from."""
    file = folder / ATTACKS
    file.replace(path_beside(file, read_object(file)["facts"]))
