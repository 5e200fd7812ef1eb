"""Hashes of models and of what they stand on. Loads no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from unsee.errors import UserError
from unsee.models import builtin, model_card
from unsee.models.location import ADAPTER, adapter_base, base_missing, folder_of, read_sidecar
from unsee.utils.files import hash_folder


def model_hash(model: Path | str) -> str:
    """Return the hash of a model's files without its card, or its hub id."""
    folder = Path(builtin.resolve(model))
    weights = folder / "model" if (folder / "model").is_dir() else folder
    return hash_folder(weights, without=(model_card.CARD,)) if weights.is_dir() else str(model)


@dataclass(frozen=True, kw_only=True)
class Base:
    """What an adapter stands on."""

    place: str
    """Folder, hub id or name."""
    adapter: Path
    """Folder of the adapter."""
    made_from: str
    """Hash of the base that the adapter was made from; empty = not noted."""
    hash: str
    """Hash of today, or the hub id."""


def bases(model: Path | str) -> Iterator[Base]:
    """Yield what an adapter stands on, then what that stands on where it is an adapter itself.

    Raises:
        UserError: There is no model, a base is not here, or an adapter stands on itself.
    """
    folder, above = folder_of(model), set()
    while isinstance(folder, Path) and (folder / ADAPTER).exists():
        if folder.resolve() in above:
            raise UserError(f"The adapter in {folder} stands on itself. Change base_model_name_or_path in {ADAPTER}.")
        above.add(folder.resolve())
        place = adapter_base(folder)
        try:
            below = folder_of(place)
        except UserError as error:
            raise base_missing(folder, place, error) from error
        noted = read_sidecar(folder).get("base_hash") or ""
        yield Base(place=place, adapter=folder, made_from=str(noted), hash=model_hash(place))
        folder = below


def lineage_hash(model: Path | str) -> str:
    """Return the hash of a model and of all that it stands on, or the id of a model on the hub."""
    hashes = [model_hash(model)]
    with suppress(UserError):  # a model that cannot be opened says so once it is needed
        hashes += [base.hash for base in bases(model)]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()
