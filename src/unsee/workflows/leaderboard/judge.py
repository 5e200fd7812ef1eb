"""Distances, kept shares and choices of a leaderboard, from judged cells."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from unsee.api.method import Promise
from unsee.errors import UserError
from unsee.report.board import left_out, left_out_words
from unsee.report.read import GOLD, Record, Stage, beside_gold, read_run
from unsee.report.summary import value
from unsee.scoring.gold_distance import KEY, MOST_LEFT_OUT
from unsee.scoring.rules import rules
from unsee.workflows import sweep
from unsee.workflows.grid import Cell
from unsee.workflows.leaderboard.plan import Board


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One setting of a method, judged on the selection questions."""

    cell: str
    label: str
    promise: Promise = "person"
    distance: float | None = None
    keeps: float | None = None
    """Smallest share kept of what the original keeps; None, like the distance, if it was not judged."""
    left_out: float | None = None
    """Share of the questions that the distance leaves out, as an answer could not be judged."""
    why: str = ""
    """Why it was not judged."""
    answers: str = ""
    """Hash of all answers and log-probabilities; empty if it was not judged."""


class Judge:
    """Distances and kept shares of cells in one world, on one part of the questions."""

    def __init__(self, board: Board, folder: Path, references: Mapping[str, Cell]) -> None:
        """Read the models to compare with."""
        self.board, self.folder = board, folder
        self.stages = {stage: self._reference(stage, cell) for stage, cell in references.items()}
        original = self.stages["original"]
        if missing_scores := [key for key in board.kept if not value(original, key)]:
            raise UserError(
                f"The original has nothing to keep in {missing_scores[0]} (kept): the score is missing or 0. "
                f"It has: {', '.join(key for key in original.runs[0].scores if value(original, key))}."
            )

    def _reference(self, stage: str, cell: Cell) -> Stage:
        if why := sweep.missing_of(self.folder, cell.name):
            raise UserError(f"{stage} ({cell.run.model}) is not judged: {why}. The same call goes on from here.")
        return Stage(name=stage, runs=(self._run(cell),))

    def _run(self, cell: Cell) -> Record:
        """Return the record of a judged cell, rescored if other rules judged it."""
        from unsee.evaluation.evaluate import rescore

        folder = self.folder / "cells" / cell.name
        if (record := read_run(folder)).rules != rules():
            rescore(folder)
            record = read_run(folder)
        return record

    def stage(self, name: str, cells: Sequence[Cell], promise: str = "") -> tuple[Stage | None, list[str]]:
        """Return the judged cells beside the gold model of the promise, or of their own, and why others are missing."""
        records, notes = [], []
        for cell in cells:
            try:
                if why := sweep.missing_of(self.folder, cell.name):
                    raise UserError(why)
                records.append(self._run(cell))
            except UserError as error:
                notes.append(f"seed {cell.run.seed}: {error}")
        if not records:
            return None, notes
        gold = self.gold(promise or records[0].promise)
        return beside_gold(Stage(name=name, runs=tuple(records)), gold), notes

    def gold(self, promise: str) -> Stage | None:
        """Return the gold model of a promise."""
        return self.stages.get(GOLD[promise])

    def keeps(self, stage: Stage) -> float | None:
        """Return the smallest share kept of the original's scores, or None if one is missing."""
        original = self.stages["original"]
        shares = [
            None if (score := value(stage, key)) is None else score / (value(original, key) or 1)
            for key in self.board.kept
        ]
        known_shares = [share for share in shares if share is not None]
        return min(known_shares) if len(known_shares) == len(shares) else None

    def trial(self, cell: Cell) -> Tried:
        """Return the outcome of a setting of the search."""
        stage, notes = self.stage(cell.label, [cell])
        if stage is None:
            return Tried(cell=cell.name, label=cell.label, why="; ".join(notes))
        distance, keeps = stage.runs[0].scores.get(KEY), self.keeps(stage)
        arguments: dict[str, Any] = {"cell": cell.name, "label": cell.label, "promise": stage.runs[0].promise}
        arguments["answers"] = hash_of_answers(stage.runs[0])
        if distance is None or distance.value is None:
            why = distance.why if distance else f"there is no gold model for its promise, {stage.runs[0].promise}"
            return Tried(**arguments, why=why)
        arguments["left_out"] = left_out(distance)
        if arguments["left_out"] > MOST_LEFT_OUT:
            return Tried(**arguments, why=left_out_words(arguments["left_out"]))
        if keeps is None:
            return Tried(**arguments, why=f"one of the scores {', '.join(self.board.kept)} is missing")
        return Tried(**arguments, distance=distance.value, keeps=keeps)


def hash_of_answers(record: Record) -> str:
    """Return the hash of what a model answered, and of how probable it found other answers."""
    answers = [
        (
            response.id,
            response.text,
            response.logprob,
            response.option_logprobs,
            response.true_logprob,
            response.perturbed_logprobs,
        )
        for response in record.responses
    ]
    return hashlib.sha256(json.dumps(sorted(answers, key=itemgetter(0))).encode()).hexdigest()


def alike(trials: Sequence[Tried]) -> str:
    """Return how many settings of a search gave equal answers, or empty if all differ."""
    counts = Counter(trial.answers for trial in trials if trial.answers)
    equal_count = sum(count for count in counts.values() if count > 1)
    return f"{equal_count} of {len(trials)} settings answered alike" if equal_count else ""


def chosen(trials: Sequence[Tried], keep: float) -> Tried | None:
    """Return the setting nearest to gold among those that keep enough.

    If none does: the one that keeps most, among equals the one nearest to gold. None if none was judged.
    """
    judged = [
        (trial, trial.distance, trial.keeps)
        for trial in trials
        if trial.distance is not None and trial.keeps is not None
    ]
    eligible = [(trial, distance) for trial, distance, keeps in judged if keeps >= keep]
    if eligible:
        return min(eligible, key=itemgetter(1))[0]
    return max(judged, key=lambda entry: (entry[2], -entry[1]))[0] if judged else None
