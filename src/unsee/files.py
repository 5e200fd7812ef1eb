"""Files that are there in full or not at all, room on the disk, and fingerprints of folders."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Final

from unsee.errors import UserError

GIB: Final = 2**30


def atomic_write_text(path: Path, text: str) -> None:
    """Write the file so that a reader, or an interruption, sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def atomic_write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON; NaN and infinity are refused, for no JSON reader has to know them."""
    atomic_write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def atomic_write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write one JSON value a line; NaN and infinity are refused."""
    atomic_write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def read_jsonl(path: Path) -> list[Any]:
    """Read one JSON value a line, empty lines skipped."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def require_space(folder: Path, needed: int, what: str) -> None:
    """Raise if the disk that holds (or will hold) `folder` has fewer than `needed` bytes free."""
    place = folder.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise UserError(
            f"Not enough disk for {what}: {needed / GIB:.2f} GiB needed, {free / GIB:.2f} GiB free at {place}. "
            "Free some space or choose another --out."
        )


def hash_folder(folder: Path, *, without: Collection[str] = ()) -> str:
    """Return the SHA-256 of the names and contents of all files below `folder` (hidden ones and those named left out)."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and path.name not in without and not any(part.startswith(".") for part in name.parts):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{name.as_posix()}\0{content}\n".encode())
    return digest.hexdigest()
