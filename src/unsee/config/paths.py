"""Folders that are not there: what is near, and whether a name can be meant for the hub. Loads no torch."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from unsee.errors import UserError, did_you_mean, nearest

_RUN = ("run.yaml", "scores.json")
"""Files that make a folder a run."""
_OURS = (*_RUN, "responses.jsonl", "vocabulary.json", "report.html", "leaderboard.csv")
"""Files that make a folder one that unsee wrote."""
PICTURES = "unsee-images"
"""Folder of pictures beside the runs that show them."""
_SHARED = (PICTURES, "images", "cache")
"""Names of folders beside runs that are no runs; `images` is what earlier versions wrote."""
_SHOWN = 8
"""Runs that are listed in a message."""


def runs_in(folder: Path) -> list[str]:
    """Return the names of the run folders in a folder."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if any((path / name).is_file() for name in _RUN))


def is_here(place: str) -> bool:
    """Tell whether a name that nothing exists at is meant for this machine: its folder holds runs, and is no owner on the hub."""
    parent = Path(place).parent
    return parent.name == "runs" or bool(runs_in(parent))


def near(place: Path | str, words: Iterable[str] = ()) -> str:
    """Return the half sentence that offers words and paths that are written nearly like `place`; nothing if there are none."""
    path = Path(place)
    there = sorted(other.name for other in path.parent.iterdir()) if path.parent.is_dir() else []
    return did_you_mean([*nearest(str(place), words), *(str(path.parent / name) for name in nearest(path.name, there))])


def pictures_folder(out: Path) -> Path:
    """Return where the pictures that a judged run shows are put: beside it, shared by all runs there, or inside of it.

    Only a folder that holds nothing but runs gets a further folder; one with files of the user's does not.
    """
    beside = out.resolve().parent
    return beside / PICTURES if _only_runs(beside, out.resolve()) else out / "images"


def _only_runs(folder: Path, out: Path) -> bool:
    """Tell whether a folder holds nothing but runs, comparisons, and what they share; hidden files do not count."""
    entries = [] if not folder.is_dir() else [path for path in folder.iterdir() if not path.name.startswith(".")]
    return all(path == out or path.name in _SHARED or _is_ours(path) for path in entries)


def _is_ours(path: Path) -> bool:
    return path.is_dir() and (not any(path.iterdir()) or any((path / name).is_file() for name in _OURS))


def require_writable(out: Path | str) -> None:
    """Raise unless the folder `out` can be made, or written into, by this user."""
    if "\0" in str(out):
        raise UserError(f"--out must not hold a NUL character, got {str(out)!r}. Give another --out.")
    place = Path(out).absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise UserError(f"--out must be a folder, but {place} is a file. Give another --out.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f"Nothing can be written at --out {out}: no permission in {place}. Give another --out.")


def require_run(place: Path | str) -> Path:
    """Return the run folder, or raise if there is no such folder.

    Raises:
        UserError: Nothing lies at `place`, or a file; the message says what makes a run folder, and which are beside it.
    """
    folder = Path(place)
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise UserError(f"{folder} is a file. Give the run folder: the --out of `unsee forget` or `unsee eval`.")
    raise no_run(folder)


def no_run(folder: Path) -> UserError:
    """Return the error for a run folder that does not exist."""
    runs = runs_in(folder.parent)
    listed = f" In {folder.parent}: {', '.join(runs[:_SHOWN])}{', ...' if len(runs) > _SHOWN else ''}." if runs else ""
    return UserError(
        f"There is no folder {folder}. A run folder is the --out of `unsee forget`, with its model in model/; once it is "
        f"judged by `unsee eval`, it also holds responses.jsonl and scores.json.{near(folder)}{listed}"
    )
