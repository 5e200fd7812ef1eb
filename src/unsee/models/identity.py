"""Hashes of models and of their bases. Loads no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from unsee.errors import UserError
from unsee.models import builtin, model_card
from unsee.models.location import adapter_base, adapter_chain, read_sidecar, weights_folder
from unsee.utils.files import hash_folder


def model_hash(model: Path | str) -> str:
    """Return the hash of a model's files without its card, or its hub id."""
    folder = Path(builtin.resolve(model))
    weights = weights_folder(folder) or folder
    return hash_folder(weights, without=(model_card.CARD,)) if weights.is_dir() else str(model)


@dataclass(frozen=True, kw_only=True)
class Base:
    """Base of an adapter."""

    place: str
    """Folder, hub id or name."""
    adapter: Path
    """Folder of the adapter."""
    made_from: str
    """Hash of the base that the adapter was made from; empty = not recorded."""
    hash: str
    """Current hash of the base, or its hub id."""


def bases(model: Path | str) -> Iterator[Base]:
    """Yield the base of an adapter, then the base of that if it is an adapter itself.

    Raises:
        UserError: There is no model, a base is not here, or an adapter stands on itself.
    """
    for adapter, _ in pairwise(adapter_chain(model)):
        folder = Path(adapter)
        base = adapter_base(folder)
        recorded_hash = read_sidecar(folder).get("base_hash") or ""
        yield Base(place=base, adapter=folder, made_from=str(recorded_hash), hash=model_hash(base))


def lineage_hash(model: Path | str) -> str:
    """Return the hash of a model and of all its bases, or the id of a model on the hub."""
    hashes = [model_hash(model)]
    with suppress(UserError):  # the error is raised again when the model is opened
        hashes += [base.hash for base in bases(model)]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()
