"""Results files, written after every case and continued by the same command."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unsee.errors import UserError
from unsee.utils.files import atomic_write_json


@dataclass
class Record:
    """The entries of one results file, and the circumstances under which all of them were measured."""

    path: Path
    circumstances: Mapping[str, Any]
    """Sections such as `machine` and `settings`; another value in one of them makes another measurement."""
    entries: dict[str, Any] = field(default_factory=dict)

    def finished(self, name: str) -> bool:
        """Tell whether the file holds a result for the case; a failed case is none."""
        return name in self.entries and "error" not in self.entries[name]

    def add(self, name: str, entry: Any) -> None:
        """Add or replace an entry and write the file."""
        self.entries[name] = entry
        atomic_write_json(self.path, self.content())

    def content(self) -> dict[str, Any]:
        """Return what the file holds."""
        return {**self.entries, **self.circumstances}


def open_record(path: Path, circumstances: Mapping[str, Any], *, fresh: bool = False) -> Record:
    """Return the record in `path`, to be continued if its circumstances are the same, else a new one.

    An earlier file of other circumstances is kept beside as NAME.previous.json.

    Raises:
        UserError: The file is not a results file.
    """
    circumstances = json.loads(json.dumps(circumstances))
    if not path.exists():
        return Record(path, circumstances)
    earlier = _read(path)
    changes = ["--fresh was given"] if fresh else list(_changes(earlier, circumstances))
    entries = {name: entry for name, entry in earlier.items() if name not in circumstances}
    if not changes:
        sys.stderr.write(f"Continuing {path}, which holds {len(entries)} cases.\n")
        return Record(path, circumstances, entries)
    aside = path.with_suffix(".previous.json")
    path.replace(aside)
    sys.stderr.write(f"Starting anew, the earlier results are kept in {aside}: {'; '.join(changes)}.\n")
    return Record(path, circumstances)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read as a results file ({error}). Give another --out.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a results file: expected a JSON object. Give another --out.")
    return content


def _changes(earlier: Mapping[str, Any], circumstances: Mapping[str, Any]) -> Iterator[str]:
    """Yield what differs, one line per value."""
    for section, values in circumstances.items():
        known = earlier.get(section, {})
        for name in sorted({*known, *values}):
            if known.get(name) != values.get(name):
                yield f"{section}.{name} was {known.get(name)!r} and is {values.get(name)!r}"
