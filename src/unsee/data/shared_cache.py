"""Cache folder shared by neighbouring runs, keyed by content: likelihoods, responses.

It lies beside the run folders (`runs/cache` for `runs/x`), or where `UNSEE_CACHE` says; `UNSEE_CACHE=off` does without.
It holds what was derived from the data of a deletion request, so it is to be deleted with the runs. It is a shortcut only:
where it cannot be used, or could have been written by another user, a run goes on without it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import stat
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from filelock import FileLock

from unsee.api.fast_paths import Engine
from unsee.compat import fast_paths
from unsee.utils.files import write_private
from unsee.utils.terminal import note_once

VARIABLE: Final = "UNSEE_CACHE"
_KEY_BYTES: Final = 32


def shared_folder(out: Path, engine: Engine) -> Path | None:
    """Return the cache folder beside `out`, created if missing, or None if caching is off.

    It is off with the plain engine.
    """
    setting = os.environ.get(VARIABLE, "")
    if setting == "off" or not engine.shared_cache:
        return None
    folder = Path(setting) if setting else out.resolve().parent / "cache"
    if problem := _problem(folder):
        _without(folder, problem)
        return None
    fast_paths.remember_in(folder)
    return folder


def shared_rows(out: Path, name: str, engine: Engine) -> KeyValueLog | None:
    """Return the signed rows `name` of the shared folder, or None if caching is off."""
    folder = shared_folder(out, engine)
    key = signing_key() if folder else None
    return None if folder is None or key is None else KeyValueLog(folder / name, key=key)


@cache
def signing_key() -> bytes | None:
    """Return this user's signing key, created at first use. None without a writable home."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unsee"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = folder / "key"
        with FileLock(folder / "key.lock"):
            if not file.is_file() or file.stat().st_size != _KEY_BYTES:
                write_private(file, secrets.token_bytes(_KEY_BYTES))
            return file.read_bytes()
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        note_once(f"the cache shared by runs is not used: its key cannot be kept in the home folder ({error}).")
        return None


def _problem(folder: Path) -> str:
    """Create the folder if missing, and return why it cannot be used, else ""."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        folder_stat = folder.stat()
    except OSError as error:
        return error.strerror or str(error)
    if not os.access(folder, os.W_OK | os.X_OK):
        return "it cannot be written to"
    if "getuid" not in vars(os):  # Windows: folders of a user are private by default
        return ""
    if folder_stat.st_uid != os.getuid():
        return "it belongs to another user"
    if stat.S_IMODE(folder_stat.st_mode) & 0o077:
        return "other users may read or write it; chmod 700 makes it yours"
    return ""


def _without(folder: Path, problem: str) -> None:
    note_once(
        f"the shared cache {folder} is not used: {problem}. {VARIABLE}=off does without it, {VARIABLE}=DIR moves it."
    )


class KeyValueLog:
    """Key-value log in a JSONL file. An incomplete last line is ignored.

    With a `key` rows are signed: those that anybody else wrote or changed count as missing, and a file that cannot be
    written to is no error.
    """

    def __init__(self, file: Path, *, key: bytes | None = None) -> None:
        """Read the existing rows."""
        self.file, self.key = file, key
        self._rows: dict[str, Any] = {}
        text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
        self._torn = not text.endswith("\n") and bool(text)
        for line in text.split("\n"):
            try:
                row = json.loads(line)
                name, value, signature = row["key"], row["value"], row.get("mac", "")
                if key is None or hmac.compare_digest(signature, self._signature(name, value)):
                    self._rows[name] = value
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                continue

    def get(self, key: str) -> Any | None:
        """Return the value, None if there is none."""
        return self._rows.get(key)

    def put(self, rows: Mapping[str, Any], *, replace: bool = False) -> None:
        """Append values of unknown keys, or of all with `replace`: of several values of a key the last counts."""
        new_rows = {key: value for key, value in rows.items() if replace or key not in self._rows}
        if not new_rows:
            return
        try:
            self._append("".join(self._line(key, value) for key, value in new_rows.items()))
        except OSError as error:
            if self.key is None:
                raise
            _without(self.file.parent, error.strerror or str(error))
        self._rows.update(new_rows)

    def _line(self, key: str, value: Any) -> str:
        row = {"key": key, "value": value}
        if self.key is not None:
            row["mac"] = self._signature(key, value)
        return json.dumps(row, ensure_ascii=False) + "\n"

    def _append(self, text: str) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a", encoding="utf-8", newline="\n") as stream:
            stream.write("\n" * self._torn + text)
            stream.flush()
            os.fsync(stream.fileno())
        self._torn = False

    def _signature(self, key: str, value: Any) -> str:
        """Return the HMAC of file name, key and value."""
        text = json.dumps([self.file.name, key, value], sort_keys=True)
        return hmac.new(self.key or b"", text.encode(), hashlib.sha256).hexdigest()
