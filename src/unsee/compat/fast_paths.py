"""Registry and trial results of fast paths that use library internals. Loads no torch.

`unsee.compat.probes` runs the trials.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from unsee.utils.files import atomic_write_text

FILE: Final = "fast_paths.json"
"""File of passed trials in the shared cache folder."""


@dataclass(frozen=True)
class FastPath:
    """A fast path that uses a library's internals."""

    name: str
    switch: str
    """Field of `unsee.api.fast_paths.Engine` that disables it."""
    library: str
    """Library whose internals it uses."""
    cost: str
    """Cost of the plain path, for the warning."""


PATHS: Final = {
    path.name: path
    for path in (
        FastPath(
            "answer_logits",
            "answer_logits",
            "transformers",
            "logits are computed for the whole sequence, which takes more memory",
        ),
        FastPath("vision_features", "vision_features", "transformers", "every image is encoded in every step"),
        FastPath("packed_rows", "shared_prefix", "transformers", "every question in training encodes its image again"),
        FastPath("packed_likelihoods", "shared_prefix", "transformers", "every scored answer encodes its image again"),
        FastPath(
            "prefix_cache",
            "shared_prefix",
            "transformers",
            "every question is answered from the pixels, which takes several times as long",
        ),
        FastPath("recompute", "recompute", "torch", "training keeps about two fifths more activations in memory"),
        FastPath(
            "vision_rerun",
            "recompute",
            "transformers",
            "a saliency sweep keeps the activations of the vision tower beside those of the language model",
        ),
    )
}

State = Literal["on", "off", "untried"]


@dataclass(frozen=True)
class Status:
    """State of a fast path for one kind of model."""

    path: FastPath
    state: State
    reason: str = ""
    """Why it is off, or why it was not tried."""
    model: str = ""
    """Class of the model it was tried on, "" if it was not."""
    version: str = ""
    """Version of the library."""


@dataclass
class Record:
    """Trials of this process, and passed ones of earlier processes."""

    statuses: dict[str, Status] = field(default_factory=dict)
    proven: set[str] = field(default_factory=set)
    folder: Path | None = None
    """Shared cache folder; None while unknown."""
    warned: set[str] = field(default_factory=set)
    """Names of paths for which a warning was printed."""

    def save(self) -> None:
        """Write passed trials atomically, if the folder exists and is writable."""
        if self.folder is None or not self.folder.is_dir():
            return
        text = json.dumps(sorted(self.proven | set(_read(self.folder / FILE))), indent=0) + "\n"
        with suppress(OSError):  # a cache that cannot be written to is only slower
            atomic_write_text(self.folder / FILE, text)


RECORD: Final = Record()


def status() -> list[Status]:
    """Return the state of every fast path for each kind of model tried in this process."""
    trials = [RECORD.statuses[key] for key in sorted(RECORD.statuses)]
    names = {trial.path.name for trial in trials}
    return [*trials, *(Status(path, "untried") for name, path in PATHS.items() if name not in names)]


def forget() -> None:
    """Forget all trials of this process."""
    vars(RECORD).update(vars(Record()))


def remember_in(folder: Path) -> None:
    """Read passed trials from a shared cache folder, and write new ones there."""
    if RECORD.folder == folder:
        return
    RECORD.folder = folder
    unsaved = set(RECORD.proven)
    RECORD.proven |= set(_read(folder / FILE))
    if unsaved:
        RECORD.save()


def _read(file: Path) -> list[str]:
    """Return the keys in a file of trials, or empty if it is missing or damaged."""
    try:
        keys = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else []
