"""A folder shared by the runs beside each other, for what depends on nothing but content: likelihoods of the start model, answers.

It lies beside the run folders (`runs/cache` for `runs/x`), or where `UNSEE_CACHE` says; `UNSEE_CACHE=off` does without.
It holds what was derived from the data of a deletion request, so it is to be deleted with the runs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from unsee import engine

VARIABLE: Final = "UNSEE_CACHE"


def shared(out: Path) -> Path | None:
    """Return the folder shared with the runs beside `out`; None if nothing is to be shared."""
    place = os.environ.get(VARIABLE, "")
    if place == "off" or not engine.current().shared_cache:
        return None
    return Path(place) if place else out.resolve().parent / "cache"


class Rows:
    """Key -> value, appended to one JSONL file; a line cut off by an interruption is not seen and does no harm."""

    def __init__(self, file: Path) -> None:
        """Read what is there."""
        self.file = file
        self._rows: dict[str, Any] = {}
        text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
        self._torn = not text.endswith("\n") and bool(text)
        for line in text.split("\n"):
            try:
                row = json.loads(line)
                self._rows[row["key"]] = row["value"]
            except (ValueError, KeyError, TypeError):
                continue

    def get(self, key: str) -> Any | None:
        """Return the value, None if there is none."""
        return self._rows.get(key)

    def put(self, rows: Mapping[str, Any]) -> None:
        """Add values; those whose key is known already are left alone."""
        new = {key: value for key, value in rows.items() if key not in self._rows}
        if not new:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(
            json.dumps({"key": key, "value": value}, ensure_ascii=False) + "\n" for key, value in new.items()
        )
        with self.file.open("a", encoding="utf-8", newline="\n") as stream:
            stream.write("\n" * self._torn + text)
            stream.flush()
            os.fsync(stream.fileno())
        self._torn = False
        self._rows.update(new)
