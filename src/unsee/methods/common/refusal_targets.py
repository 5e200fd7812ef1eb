"""Forget questions with a refusal in place of the answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from unsee.api import Session
from unsee.api.request import Target
from unsee.data.records import Record
from unsee.data.refusals import refusals
from unsee.errors import UserError
from unsee.training.targets import forget_targets
from unsee.utils.parsing import read_object
from unsee.utils.seeds import seed_of


def refusal_targets(session: Session, file: str = "") -> list[Target]:
    """Return the forget targets with a refusal each, drawn once per example.

    `file`: text file with one refusal per line, or SafeEraser's prompt.json; empty = the built-in list.
    """
    sentences = _read(Path(file)) if file else refusals()
    return [
        replace(target, text=sentences[seed_of(session.seed, "refusal", target.example.id) % len(sentences)])
        for target in forget_targets(session)
    ]


def _read(path: Path) -> tuple[str, ...]:
    """Return the lines of a user's list, or `idk` of a JSON file, stripped and non-empty."""
    if not path.is_file():
        raise UserError(f"method.refusals names no file: {path}. Give a text file with one refusal a line.")
    if path.suffix.lower() == ".json":
        lines = Record(read_object(path)).strings("idk")
    else:
        lines = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    if not lines:
        raise UserError(f"The list of refusals {path} is empty; write one refusal a line.")
    return lines
