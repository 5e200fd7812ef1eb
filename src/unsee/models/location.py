"""Location of model folders: Hugging Face folder, adapter, run folder or hub id. Loads no torch."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final

from unsee import config
from unsee.config import paths
from unsee.errors import UserError, short_repr
from unsee.models import builtin
from unsee.utils.parsing import read_object

ADAPTER: Final = "adapter_config.json"
SIDECAR: Final = "unsee.json"
STEERING: Final = "rmuse"
"""Stem of the files of a steering artefact."""


def folder_of(path: Path | str) -> Path | str:
    """Return the folder with the weights: `path`, or `model` in a run folder. Ids unchanged."""
    paths.require_possible(path, "A model")
    path = builtin.resolve(path)
    folder = Path(path)
    if not folder.exists():
        is_path = folder.is_absolute() or str(path).startswith((".", "~")) or str(path).count("/") != 1
        if is_path or paths.is_here(str(path)):
            raise UserError(
                f"No model at {path}: expected a run folder, a folder with config.json, a hub id like owner/name, or one of "
                f"{', '.join(builtin.PACKAGED)}.{paths.near(path, builtin.PACKAGED)}"
            )
        return str(path)
    found = weights_folder(folder)
    if found != folder:
        config.require_ended(folder)
    if found is not None:
        return found
    if _weights_purged(folder):
        raise UserError(
            f"No model in {path}: its weights were purged (see {folder / paths.PURGES}). Unlearn again, in another --out."
        )
    raise UserError(f"No model in {path}: expected config.json (or {ADAPTER}) there or in its folder `model`.")


def weights_folder(folder: Path) -> Path | None:
    """Return the folder itself if it holds a model, else its `model` if that does."""
    candidates = (folder, folder / "model")
    return next(
        (place for place in candidates if any((place / name).exists() for name in ("config.json", ADAPTER))), None
    )


def _weights_purged(folder: Path) -> bool:
    """Tell whether a purge of this folder took weights."""
    file = folder / paths.PURGES
    return file.is_file() and any("weights" in purge.get("levels", ()) for purge in read_object(file).get("purges", ()))


def read_sidecar(folder: Path | str) -> dict[str, Any]:
    """Return unsee's metadata beside the weights, or empty for foreign checkpoints."""
    file = Path(folder) / SIDECAR
    if not file.exists():
        return {}
    sidecar = read_object(file)
    for name, kinds in (("instruction", (str,)), ("base", (str, type(None))), ("quantization", (str,))):
        if not isinstance(sidecar.get(name, ""), kinds):
            raise UserError(
                f"{file}: {name!r} must be text, got {short_repr(sidecar[name])}. Restore the file from its run."
            )
    return sidecar


def adapter_base(folder: Path) -> str:
    """Return the base of an adapter folder, as recorded by unsee, else by PEFT."""
    settings = read_object(folder / ADAPTER)
    base = read_sidecar(folder).get("base") or settings.get("base_model_name_or_path")
    if not isinstance(base, str) or not base.strip():
        raise UserError(
            f"The adapter in {folder} does not say what it stands on: base_model_name_or_path in {ADAPTER} must be a folder "
            f"or hub id, got {short_repr(base)}. Write it there."
        )
    return base


def adapter_chain(model: Path | str) -> Iterator[Path | str]:
    """Yield the folder of a model, then the folder or id of each base that its adapters stand on.

    Raises:
        UserError: There is no model, a base is not here, or an adapter stands on itself.
    """
    folder = folder_of(model)
    above: list[Path] = []
    yield folder
    while isinstance(folder, Path) and (folder / ADAPTER).exists():
        require_no_circle(folder, above)
        above.append(folder.resolve())
        base = adapter_base(folder)
        try:
            base_folder = folder_of(base)
        except UserError as error:
            raise base_missing(folder, base, error) from error
        folder = base_folder
        yield folder


def require_no_circle(folder: Path, above: Collection[Path]) -> None:
    """Raise if an adapter is among the resolved folders of the adapters above it."""
    if folder.resolve() in above:
        raise UserError(f"The adapter in {folder} stands on itself. Change base_model_name_or_path in {ADAPTER}.")


def is_steered(folder: Path | str) -> bool:
    """Tell whether a model's folder has a steering artefact."""
    return (Path(folder) / f"{STEERING}.json").exists()


def base_missing(folder: Path, base: str, error: UserError) -> UserError:
    """Return the error of an adapter whose base cannot be opened because it is not here."""
    return UserError(
        f"The adapter in {folder} stands on {base}, which is not here. Change base_model_name_or_path in its {ADAPTER} "
        f"(and base in its {SIDECAR}, if there is one). {error}"
    )
