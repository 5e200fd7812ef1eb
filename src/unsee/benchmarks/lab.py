"""The embedded world as a benchmark: `--data lab`, or the folder of a lab trained with other settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from unsee.api import Benchmark, Example, Vocabulary
from unsee.errors import UserError
from unsee.lab import examples as lab_examples
from unsee.lab.settings import SUGGESTED
from unsee.lab.world import World

WORLD_FILE = "world.json"
"""Written beside a trained lab model: the arguments of its World."""


class Lab(Benchmark):
    """People of the embedded world, some of whom are to be forgotten."""

    name: ClassVar[str] = "lab"

    def __init__(self, place: Path | None = None) -> None:
        """Open the default world, or the one described in `place / "world.json"`."""
        self.world = World() if place is None else _read(place / WORLD_FILE)

    def examples(self, split: Literal["train", "eval"]) -> Sequence[Example]:
        """Return the deletion request ("train") or what is judged afterwards ("eval")."""
        return lab_examples.request(self.world) if split == "train" else lab_examples.judged(self.world)

    def vocabulary(self) -> Vocabulary:
        """Return everything that could be claimed in the world."""
        return self.world.vocabulary()

    def suggested(self, method: str) -> Mapping[str, Any]:
        """Return the training settings that suit the tiny model."""
        return SUGGESTED.get(method, SUGGESTED["default"])


def _read(file: Path) -> World:
    try:
        return World(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{file} does not describe a lab world ({error}); train one with `unsee train lab --out DIR`."
        ) from error
