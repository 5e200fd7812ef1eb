"""Atomic writes, safe removal, disk-space checks and folder hashes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

from unsee.errors import UserError

GIB: Final = 2**30
OWNED: Final = ".unsee-owned"
"""Marker of folders that unsee created and may therefore remove."""
LOCK: Final = ".unsee.lock"
"""Lock of an output folder (see `unsee.distributed.file_lock`)."""
OWNER_SUFFIX: Final = ".owner"
"""Suffix of the file beside a lock that names its holder."""
PART: Final = ".unsee-part"
"""Suffix of files and folders that are being written."""
_TEMPORARY: Final = re.compile(rf"\..+\{PART}|\.(run\.yaml|continual\.yaml|demo\.json|exam\.json)\.[a-z0-9_]{{8}}")

_PUBLIC: Final = re.compile(
    r"(model|adapter_model|rmuse)[\w.-]*\.safetensors|(pytorch_model|model)\.safetensors\.index\.json"
    r"|(adapter_|generation_|preprocessor_|processor_|tokenizer_|video_preprocessor_|image_processor_)?config\.json"
    r"|(tokenizer|vocab|added_tokens|special_tokens_map|chat_template|unsee|rmuse(-\d+)?)\.json"
    r"|(tokenizer|spiece|sentencepiece\.bpe)\.model|merges\.txt|vocab\.txt|chat_template\.jinja|README\.md"
)
"""File names that make up a model: weights, configs, tokenizer, processor, card and sidecar."""


@contextmanager
def atomic_writer(path: Path, *, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Yield a stream that replaces the file `path` atomically at the end of the block.

    Args:
        path: File to write; its folder is made.
        mode: Permissions of the file, minus the umask; any program's by default.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:80]}.{secrets.token_hex(4)}{PART}")
    try:
        with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_private(file: Path, content: bytes) -> None:
    """Write a file, whole or not at all, that only this user can read."""
    with atomic_writer(file, mode=0o600) as stream:
        stream.write(content)


def atomic_write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_writer(path) as stream:
        stream.write(text.encode())


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `folder` atomically at the end of the block.

    An earlier `folder` is replaced if unsee made it; one that anybody else has put files into is refused. It is renamed for a
    moment, so that a kill loses neither; the next call restores it.
    """
    _require_removable(folder)
    backup = folder.with_name(f".{folder.name[:80]}.old{PART}")
    if backup.is_dir() and not folder.exists():
        backup.rename(folder)
    remove_folder(backup)
    temporary = owned_folder(folder.with_name(f"{folder.name}.part"), anew=True)
    yield temporary
    follow_umask(*temporary.rglob("*"))
    for file in temporary.rglob("*"):
        sync(file)
    if folder.exists():
        _require_removable(folder)
        folder.rename(backup)
    temporary.rename(folder)
    sync(folder.parent)
    remove_folder(backup)


def follow_umask(*paths: Path) -> None:
    """Give files the mode of any new file.

    safetensors (0.8) leaves its files readable by their owner only.
    """
    files = [path for path in paths if path.is_file()]
    if not files or os.name == "nt":
        return
    probe = files[0].with_name(f".{secrets.token_hex(8)}{PART}")
    probe.touch(exist_ok=False)
    mode = probe.stat().st_mode & 0o777
    probe.unlink()
    for file in files:
        file.chmod(mode)


def sync(path: Path) -> None:
    """Flush a file or folder to the disk. Folders only where the system can (Windows cannot)."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)  # Windows flushes only what may be written
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def owned_folder(folder: Path, *, anew: bool = False) -> Path:
    """Create a marked folder, and keep the state of an existing one unless `anew`.

    It appears with its mark: a kill never leaves one that nobody owns.
    """
    if anew:
        remove_folder(folder)
    if folder.is_dir():  # ours, or somebody else's: its marker tells
        return folder
    temporary = folder.with_name(f".{folder.name[:80]}.{secrets.token_hex(4)}{PART}")
    temporary.mkdir(parents=True)
    (temporary / OWNED).touch()
    try:
        temporary.rename(folder)
    except OSError:  # another process was faster, or a file is there
        shutil.rmtree(temporary)
        if not folder.is_dir():
            raise
    return folder


def remove_folder(folder: Path) -> None:
    """Remove a folder made by `owned_folder`, or an empty one. A missing one is no error.

    Every removal in unsee goes through here or `remove_file`.

    Raises:
        UserError: Anybody else made the folder, or it is a link.
    """
    _require_removable(folder)
    if folder.exists():
        shutil.rmtree(folder)


def _require_removable(folder: Path) -> None:
    """Raise unless `folder` is missing, holds only own files, or is marked as unsee's."""
    removable = folder.is_dir() and not folder.is_symlink() and ((folder / OWNED).is_file() or not foreign(folder))
    if folder.is_symlink() or (folder.exists() and not removable):
        raise UserError(
            f"{folder} was not made by unsee (it has no {OWNED}), so it is neither replaced nor removed. "
            "Move it away, or give another output folder."
        )


def remove_file(file: Path) -> None:
    """Remove a marker, a lock, or a file of an owned folder. A missing one is no error."""
    if not (is_own(file) or (file.parent / OWNED).is_file() or not file.exists()):
        raise UserError(f"{file} is not in a folder that unsee made, so it is not removed. Move it away.")
    file.unlink(missing_ok=True)


def remove_listed(file: Path) -> None:
    """Remove a file that the caller lists by name. A missing one is no error.

    The caller has checked that unsee made the folder.
    """
    file.unlink(missing_ok=True)


def distinct(folders: Iterable[Path | str]) -> list[Path]:
    """Return each folder once, whatever paths lead to it."""
    paths: dict[Path, Path] = {}
    for folder in map(Path, folders):
        paths.setdefault(folder.resolve(), folder)
    return list(paths.values())


def foreign(folder: Path) -> list[Path]:
    """Return the folder's entries except markers, locks and temporary files."""
    return [] if not folder.exists() else [path for path in folder.iterdir() if not is_own(path)]


def is_public(name: str) -> bool:
    """Tell whether a file name belongs to a model and may be published with it."""
    return _PUBLIC.fullmatch(name) is not None


def is_own(path: Path) -> bool:
    """Tell whether a name is a marker, a lock, or a temporary file of unsee."""
    return path.name in (OWNED, LOCK, f"{LOCK}{OWNER_SUFFIX}") or is_temporary(path)


def is_temporary(path: Path) -> bool:
    """Tell whether a file was left half-written by a killed process."""
    return _TEMPORARY.fullmatch(path.name) is not None


def sweep_temporary(folder: Path) -> None:
    """Remove half-written files of killed processes. Only the owner of the folder may call it.

    Folders below belong to it too, unless they have a lock of their own. Links are not followed.
    """
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_symlink():
            continue
        if path.is_dir() and is_temporary(path) and [entry.name for entry in path.iterdir()] in ([], [OWNED]):
            shutil.rmtree(path)
        elif path.is_dir() and not (path / LOCK).exists():
            sweep_temporary(path)
        elif is_temporary(path) and path.is_file():
            path.unlink(missing_ok=True)


def atomic_write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, and reject NaN and infinity, which are not JSON."""
    atomic_write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def atomic_write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write one JSON value per line, and reject NaN and infinity."""
    atomic_write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def read_jsonl(path: Path) -> list[Any]:
    """Read one JSON value per line, skipping empty lines. A damaged line is a UserError."""
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        try:
            rows += [json.loads(line)] if line.strip() else []
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{path} is damaged (line {number}: {error!s:.200}). Make it again with the command that wrote it."
            ) from error
    return rows


def is_too_long(path: Path | str) -> bool:
    """Tell whether no file can have this path: it, or a name in it, has more characters than the system takes."""
    try:
        os.lstat(path)
    except (OSError, ValueError) as error:
        return isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG
    return False


def existing_ancestor(path: Path) -> Path:
    """Return the absolute path itself, or its nearest parent that exists."""
    path = path.absolute()
    return next((place for place in (path, *path.parents) if place.exists()), Path(path.anchor))


def require_space(folder: Path, needed_bytes: int, purpose: str) -> None:
    """Raise if the disk that holds (or will hold) `folder` has fewer than `needed_bytes` free."""
    ancestor = existing_ancestor(folder.resolve())
    free_bytes = shutil.disk_usage(ancestor).free
    if free_bytes < needed_bytes:
        raise UserError(
            f"Not enough disk for {purpose}: {needed_bytes / GIB:.2f} GiB needed, {free_bytes / GIB:.2f} GiB free at {ancestor}. "
            "Free some space or choose another --out."
        )


def hash_folder(folder: Path, *, without: Collection[str] = ()) -> str:
    """Return the SHA-256 of all file names and contents below `folder`.

    Hidden files and those given by name are left out.
    """
    digest = hashlib.sha256()
    # by parts: Windows sorts paths without regard to case, which would be another hash
    for path in sorted(folder.rglob("*"), key=lambda path: path.parts):
        name = path.relative_to(folder)
        if path.is_file() and path.name not in without and not any(part.startswith(".") for part in name.parts):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{name.as_posix()}\0{content}\n".encode())
    return digest.hexdigest()
