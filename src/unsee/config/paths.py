"""Path checks, and hints for missing run folders and hub ids. Loads no torch."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from unsee.errors import UserError, did_you_mean, nearest, short_repr
from unsee.utils.files import existing_ancestor, is_too_long
from unsee.utils.parsing import read_object

_RUN = ("run.yaml", "scores.json")
"""Files that mark a run folder."""
_OURS = (*_RUN, "responses.jsonl", "vocabulary.json", "report.html", "leaderboard.csv")
"""Files that mark a folder written by unsee."""
PICTURES = "unsee-images"
"""Shared image folder beside run folders."""
SHARED = (PICTURES, "images", "cache")
"""Folders beside runs that are not runs; `images` was written by earlier versions."""
PURGES = "purge.json"
"""File that says what was purged, and when."""
_BASE = "-base"
"""Ending of the folder that keeps a model given as an object."""
_SHOWN = 8
"""Most runs listed in a message."""


def runs_in(folder: Path) -> list[str]:
    """Return the names of the run folders in a folder."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if any((path / name).is_file() for name in _RUN))


def is_here(name: str) -> bool:
    """Tell whether a missing name is meant as a local path: its folder holds runs."""
    parent = Path(name).parent
    return parent.name == "runs" or bool(runs_in(parent))


def is_model(gold: str) -> bool:
    """Tell whether a gold model is given by its weights, not as a run that is judged.

    Its weights are a built-in model, a folder or a hub id.
    """
    require_possible(gold, "The gold model")
    path = Path(gold)
    if path.exists():
        has_weights = any((path / name).exists() for name in ("config.json", "adapter_config.json", "model"))
        return has_weights and not (path / "responses.jsonl").is_file()
    return gold.partition("-")[0] == "lab" or (gold.count("/") == 1 and gold[0] not in "./~" and not is_here(gold))


def require_possible(path: Path | str, what: str, error: type[UserError] = UserError) -> None:
    """Raise if a path is longer than the system allows: `Path.exists` would raise OSError for it.

    Args:
        path: Path, name or hub id as the user gave it.
        what: What it was given as, for the message.
        error: Error to raise.
    """
    if is_too_long(path):
        raise error(
            f"{what} must be a path or a name, got a text of {len(str(path))} characters, and no path may be that long: "
            f"{short_repr(str(path))}."
        )


def near(missing: Path | str, words: Iterable[str] = ()) -> str:
    """Return a "did you mean" clause of similar words and paths, or empty if there are none."""
    path = Path(missing)
    siblings = sorted(sibling.name for sibling in path.parent.iterdir()) if path.parent.is_dir() else []
    return did_you_mean(
        [*nearest(str(missing), words), *(str(path.parent / name) for name in nearest(path.name, siblings))]
    )


def pictures_folder(out: Path) -> Path:
    """Return the folder for images of a judged run: shared beside runs, else inside it.

    Only a folder that holds nothing but runs gets a further folder; one with files of the user's does not.
    """
    parent = out.resolve().parent
    return parent / PICTURES if _only_runs(parent, out.resolve()) else out / "images"


def base_of_run(run: Path) -> Path:
    """Return the folder beside a run for an original model that was given as an object."""
    return run.with_name(run.name + _BASE)


def run_of_base(base: Path) -> Path:
    """Return the run that a kept original model belongs to."""
    return base.with_name(base.name.removesuffix(_BASE))


def is_base(folder: Path) -> bool:
    """Tell whether unsee keeps the original model of a run in a folder."""
    sidecar = folder / "unsee.json"
    return folder.name.endswith(_BASE) and sidecar.is_file() and "object" in read_object(sidecar)


def _only_runs(folder: Path, out: Path) -> bool:
    """Tell whether a folder holds only runs, comparisons and shared files. Hidden ones aside."""
    entries = [] if not folder.is_dir() else [path for path in folder.iterdir() if not path.name.startswith(".")]
    return all(path == out or path.name in SHARED or _is_ours(path) for path in entries)


def _is_ours(path: Path) -> bool:
    return path.is_dir() and (not any(path.iterdir()) or any((path / name).is_file() for name in _OURS))


def require_writable(out: Path | str) -> None:
    """Raise unless this user can create `out` or write into it."""
    if "\0" in str(out):
        raise UserError(f"--out must not hold a NUL character, got {str(out)!r}. Give another --out.")
    require_possible(out, "--out")
    ancestor = existing_ancestor(Path(out))
    if not ancestor.is_dir():
        raise UserError(f"--out must be a folder, but {ancestor} is a file. Give another --out.")
    if not os.access(ancestor, os.W_OK | os.X_OK):
        raise UserError(f"Nothing can be written at --out {out}: no permission in {ancestor}. Give another --out.")


def require_own(weights: Path | str, out: Path) -> None:
    """Raise if `out` is the folder of a run, and `weights` are not its own.

    The run file of a run, for one, names the model that it began with.
    """
    if (out / _RUN[0]).is_file() and Path(weights).resolve() != (out / "model").resolve():
        raise UserError(
            f"{out} is the folder of a run, and would get the results of {weights}. Give the run itself (--model {out}), or another --out."
        )


def require_run(path: Path | str) -> Path:
    """Return the run folder, or raise if it does not exist.

    Raises:
        UserError: Nothing lies at `path`, or a file; the message says what makes a run folder, and which are beside it.
    """
    require_possible(path, "A run folder")
    folder = Path(path)
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise UserError(f"{folder} is a file. Give the run folder: the --out of `unsee forget` or `unsee eval`.")
    raise no_run(folder)


def no_run(folder: Path) -> UserError:
    """Return the error for a missing run folder."""
    runs = runs_in(folder.parent)
    hint = f" In {folder.parent}: {', '.join(runs[:_SHOWN])}{', ...' if len(runs) > _SHOWN else ''}." if runs else ""
    return UserError(
        f"There is no folder {folder}. A run folder is the --out of `unsee forget`, with its model in model/; once it is "
        f"judged by `unsee eval`, it also holds responses.jsonl and scores.json.{near(folder)}{hint}"
    )
