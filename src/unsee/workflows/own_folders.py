"""Folders that unsee made: how they are told from others, and those inside and beside them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from unsee.config import RECORD, paths
from unsee.config.paths import PURGES
from unsee.errors import UserError
from unsee.utils.files import LOCK, OWNED

_MARKS: Final = (
    *(LOCK, OWNED, PURGES, "judged.json", "step.json", "demo.json", "continual.json", "continual.yaml"),
    *(f"model/{OWNED}", f"claims/{OWNED}"),
)
"""Files whose folder was made by unsee, beside a run.yaml with a record and answers with their vocabulary."""
DEEP: Final = 2
"""Levels of folders between a place and its runs, and between a run and the whole that it is part of."""
OF_PROJECT: Final = (
    "Run `unsee request purge --project {}`: it removes the data of closed requests, and notes it in the ledger."
)


def is_unit(folder: Path) -> bool:
    """Tell whether unsee made a folder, by its marks."""
    has_answers = all((folder / name).is_file() for name in ("responses.jsonl", "vocabulary.json"))
    if has_answers or any((folder / name).is_file() for name in _MARKS) or paths.is_base(folder):
        return True
    record = folder / RECORD
    return record.is_file() and "\nrecord:" in record.read_text(encoding="utf-8", errors="replace")


def is_project(folder: Path) -> bool:
    """Tell whether a folder keeps deletion requests, whose open ones need their data."""
    return all((folder / name).is_file() for name in ("project.yaml", "ledger.sqlite"))


def units_below(folder: Path, depth: int) -> list[Path]:
    """Return the outermost folders of unsee below one.

    A link that leads out is refused.
    """
    units: list[Path] = []
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            _require_inside(path, folder)
        elif is_project(path):
            raise UserError(f"{folder} holds a project of deletion requests, {path.name}. {OF_PROJECT.format(path)}")
        elif path.is_dir() and is_unit(path):
            units.append(path)
        elif path.is_dir() and depth > 1:
            units += units_below(path, depth - 1)
    return units


def units_of(root: Path) -> list[Path]:
    """Return a folder of unsee and those below it, outermost first. Links are not followed."""
    folders = sorted(Path(folder) for folder, _, _ in os.walk(root))
    return [folder for folder in folders if folder == root or is_unit(folder)]


def files_of(root: Path) -> Iterator[Path]:
    """Yield the files below a folder, or raise for a link that leads out."""
    for folder, folders, names in os.walk(root):
        folders.sort()
        for path in (Path(folder) / name for name in sorted((*folders, *names))):
            if path.is_symlink():
                _require_inside(path, root)
            if path.name in names:
                yield path


def _require_inside(link: Path, folder: Path) -> None:
    if not link.resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"{link} is a link that leads out of {folder}. Nothing was removed; remove the link, or move it away."
        )


def children_of(folder: Path) -> list[Path]:
    """Return the folders of unsee directly in a folder."""
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.is_symlink() and is_unit(path)]


def beside(folder: Path, top: Path, depth: int) -> Iterator[Path]:
    """Yield the outermost folders of unsee, and projects, below one.

    Of links, only those that lead out of `top`; these are not followed further.
    """
    for path in sorted(folder.iterdir()):
        linked = path.is_symlink()
        if not path.is_dir() or (linked and path.resolve().is_relative_to(top)):
            continue
        if is_project(path) or is_unit(path):
            yield path
        elif depth > 1 and not linked:
            yield from beside(path, top, depth - 1)
