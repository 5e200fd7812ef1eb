"""Run folders read for reports: responses, scores, training log."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from unsee import config
from unsee.api import Response, Score
from unsee.errors import UserError, short_repr
from unsee.report.printable import printable
from unsee.scoring.against_gold import (
    against_gold,
    forget_quality_score,
    incomparable,
    no_forget_quality,
    same_questions,
)
from unsee.scoring.conditions import with_false_answers
from unsee.scoring.gold_distance import gold_distance
from unsee.utils.files import distinct


@dataclass(frozen=True, kw_only=True)
class Record:
    """Evaluated run folder."""

    folder: Path
    stage: str
    seed: str
    scores: Mapping[str, Score]
    responses: tuple[Response, ...]
    known: int
    """Number of entities in vocabulary.json; 0 without it."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    settings_text: str = ""
    log: tuple[Mapping[str, float], ...] = ()
    judged: Mapping[str, Any] = field(default_factory=dict)
    """judged.json: evaluated weights and gold model; empty for runs without it."""
    attacks: Mapping[str, Any] = field(default_factory=dict)
    """attacks.json: attack -> its results; empty for runs that were not attacked."""
    attack_facts: Mapping[str, Any] = field(default_factory=dict)
    """attacks.json: what all its attacks were made with, such as `seed`, `split` and the hash of `gold`; empty if unknown."""

    @cached_property
    def questions(self) -> str:
        """Hash of the questions, and of correct and private values."""
        questions = sorted(
            (
                response.id,
                response.role,
                response.question,
                response.answer,
                response.image_key,
                sorted(map(str, response.private.items())),
            )
            for response in self.responses
        )
        return hashlib.sha256(json.dumps(questions).encode()).hexdigest()

    @property
    def made_by(self) -> Mapping[str, Any]:
        """Settings that produced the evaluated model, or empty if no run did."""
        settings = self.settings if self.settings.get("method") else self.judged.get("made_by")
        return settings if isinstance(settings, Mapping) else {}

    @property
    def weights(self) -> str:
        """Hash of the evaluated weights, else their name, or empty if unknown."""
        return str(self.judged.get("weights") or self.judged.get("model") or "")

    @property
    def rules(self) -> str:
        """Hash of the rules that its answers were judged by, or empty for older runs."""
        return str(self.judged.get("rules") or "")

    @property
    def gold(self) -> str:
        """Hash of the gold responses for forget quality, or empty without any."""
        gold = self.judged.get("gold")
        return str(gold.get("answers", "")) if isinstance(gold, Mapping) else ""

    @property
    def gold_name(self) -> str:
        """Folder of the gold model of the scores."""
        gold = self.judged.get("gold")
        return str(gold.get("folder", "")) if isinstance(gold, Mapping) else ""

    @property
    def promise(self) -> str:
        """Scope of forgetting: "person", or "picture" if questions by name stay answered."""
        promise = self.result.get("promise") or self.made_by.get("promise")
        return "picture" if promise == "picture" else "person"

    @property
    def result(self) -> Mapping[str, Any]:
        """The `result` part of run.yaml."""
        result = self.settings.get("result")
        return result if isinstance(result, dict) else {}

    @cached_property
    def by_id(self) -> Mapping[str, Response]:
        """Response id -> response."""
        return {response.id: response for response in self.responses}

    def value_of(self, key: str, index: str) -> float | None:
        """Return the value of a response for a score, or None without one."""
        score = self.scores.get(key)
        return None if score is None else score.value_by_index.get(index)

    @property
    def decoding(self) -> Mapping[str, Any]:
        """Settings that its answers were generated with, or empty if unknown."""
        decoding = self.judged.get("decoding") or self.settings.get("eval")
        names = ("max_new_tokens", "backend")
        return {name: decoding[name] for name in names if name in decoding} if isinstance(decoding, Mapping) else {}

    @cached_property
    def group_of(self) -> Mapping[str, str]:
        """Response id -> role for scoring (text-only questions under the role's text form)."""
        return {index: key.partition(".")[0] for key, score in self.scores.items() for index in score.value_by_index}


def read_run(folder: Path) -> Record:
    """Read a run folder. A UserError names what is missing or broken."""
    if not folder.is_dir():
        raise UserError(f"Expected a run folder, got {folder}, which is not a folder. Give the --out of `unsee eval`.")
    responses_path, scores_path = folder / "responses.jsonl", folder / "scores.json"
    if not responses_path.is_file() and not scores_path.is_file():
        raise UserError(
            f"{folder} is no evaluated run: it has neither responses.jsonl nor scores.json. "
            f"Run `unsee eval --model {folder} --data DATA --out {folder}` first."
        )
    judged = _record(folder / "judged.json")
    config.require_answered(folder)
    _require_file(responses_path)
    responses = tuple(config.read_responses(responses_path))
    if not responses:
        raise UserError(f"{responses_path} is empty: nothing was asked. Run `unsee eval` again.")
    _require_numbers(folder, responses)  # first, as it is why they were not judged
    config.require_judged(folder)
    _require_file(scores_path)
    settings_text, settings = _settings(folder / "run.yaml")
    attacks, attack_facts = _attacks(folder / "attacks.json")
    return Record(
        folder=folder,
        stage=responses[0].stage or _method(settings) or folder.name,
        seed=str(settings.get("seed", "")),
        scores=_scores(scores_path),
        responses=responses,
        known=_name_count(folder / "vocabulary.json"),
        settings=settings,
        settings_text=settings_text,
        log=tuple(_log(folder / "log.jsonl")),
        judged=judged,
        attacks=attacks,
        attack_facts=attack_facts,
    )


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise UserError(
            f"{path.parent} has no {path.name}. Run `unsee eval --model M --data DATA --out {path.parent}` again."
        )


def _require_numbers(folder: Path, responses: Sequence[Response]) -> None:
    """Raise for a run with NaN or infinite model outputs."""
    for response in responses:
        if not response.finite:
            raise UserError(
                f"{folder}: the model's output was not a number at example {response.id!r}, so its answers cannot be compared. "
                "Leave the run out, or judge a whole checkpoint."
            )


def _record(path: Path) -> dict[str, Any]:
    record = _json(_text(path), str(path)) if path.is_file() else {}
    if not isinstance(record, dict):
        raise UserError(f"{path}: expected a mapping, got {short_repr(record, 60)}. Evaluate the run again.")
    return record


def _attacks(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the results of attacks, and what all of them were made with."""
    content = _record(path)
    attacks, facts = content.get("attacks", {}), content.get("facts", {})
    if (
        not isinstance(facts, dict)
        or not isinstance(attacks, dict)
        or not all(map(_is_attack_result, attacks.values()))
    ):
        raise UserError(f"{path} is damaged: expected attacks with their results. Run `unsee attack` again.")
    return attacks, facts


def _is_attack_result(result: Any) -> bool:
    """Tell whether a result is a mapping whose figures are numbers, or null where there may be none."""
    if not isinstance(result, dict):
        return False
    figures = [result.get(name, 0) for name in ("recovered", "cut", "unjudged")]
    figures += [result[name] for name in ("gold", "at") if result.get(name) is not None]
    return all(isinstance(figure, int | float) for figure in figures)


def _rows(path: Path) -> list[Any]:
    rows = []
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if line.strip():
            rows.append(_json(line, f"{path}, line {number}"))
    return rows


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is damaged: {error}. Evaluate the run again, or restore the file.") from error


def _json(text: str, source: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source}: expected JSON, got {text[:60]!r} ({error}). Evaluate the run again.") from error


def _scores(path: Path) -> dict[str, Score]:
    try:
        return {key: _score(row) for key, row in _json(path.read_text(encoding="utf-8"), str(path)).items()}
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: expected metric -> score ({error!r}). Evaluate the run again.") from error


def _score(row: Mapping[str, Any]) -> Score:
    interval = row.get("interval")
    for figure in (row["value"], *(interval or ())):
        if figure is not None and not math.isfinite(figure):
            raise TypeError(f"a score is {figure}, which is not a number")
    return Score(
        value=row["value"],
        n=int(row["n"]),
        interval=(float(interval[0]), float(interval[1])) if interval else None,
        better=row.get("better", "neither"),
        value_by_index=dict(row.get("value_by_index") or {}),
        why=row.get("why", ""),
    )


def _settings(path: Path) -> tuple[str, dict[str, Any]]:
    if not path.is_file():
        return "", {}
    text = _text(path)
    try:
        settings = config.parse_yaml(text, where=str(path))
    except UserError as error:
        raise UserError(f"{path}: expected YAML. {error}. Restore the file or run again.") from error
    return text, settings if isinstance(settings, dict) else {}


def _method(settings: Mapping[str, Any]) -> str:
    """Return the method's name in run.yaml, in either form."""
    method = settings.get("method", "")
    return str(method.get("name", "") if isinstance(method, dict) else method)


def _name_count(path: Path) -> int:
    if not path.is_file():
        return 0
    names = _record(path).get("names") or {}
    return len(names) if isinstance(names, dict) else 0


def _log(path: Path) -> list[Mapping[str, float]]:
    return [_numbers(row) for row in _rows(path) if isinstance(row, dict)] if path.is_file() else []


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    return {
        key: float(value)
        for key, value in row.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    }


GOLD: Final[Mapping[str, str]] = {"person": "gold", "picture": "gold-picture"}
"""Promise -> stage of the gold model, which never learnt what is promised to be forgotten."""
REFERENCES: Final = ("original", *GOLD.values())
"""Stages of reference models, which are compared with and not ranked."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """All runs (one per seed) of one model: the original, the gold model or a method."""

    name: str
    runs: tuple[Record, ...]
    gold: Stage | None = None
    """Gold model that its scores stand beside."""

    @property
    def kind(self) -> str:
        """Name without what distinguishes its runs (`original run=e1`)."""
        return self.name.partition(" ")[0] if "=" in self.name else self.name

    @property
    def label(self) -> str:
        """Display name: the method in capitals, with the settings of a sweep cell, printable."""
        settings = self.name.removeprefix(self.kind)
        plain = re.sub(r"[\[\]'\"]", "", settings).replace(", ", "+")
        method = self.kind.capitalize() if self.reference else self.kind.upper()
        return printable(method + plain if self.reference else (method + plain).replace("_", " "))

    @property
    def reference(self) -> bool:
        """Whether this is a reference row, not a method."""
        return self.kind in REFERENCES


def read_stages(stages: Mapping[str, Sequence[Path]]) -> tuple[Stage, ...]:
    """Read the run folders of every stage: original, gold, then the methods as given."""
    if not stages:
        raise UserError("Expected at least one run folder, got none. Give the folders that `unsee eval` wrote.")
    unordered = []
    for name, folders in stages.items():
        if not folders:
            raise UserError(f"Stage {name!r} has no run folder. Leave the stage out or give its folder.")
        unordered.append(_require_seeds(Stage(name=name, runs=tuple(map(read_run, distinct(folders))))))
    ordered_stages = sorted(unordered, key=lambda stage: (*REFERENCES, stage.kind).index(stage.kind))
    return tuple(beside_gold(stage, gold_for(ordered_stages, stage.runs[0].promise)) for stage in ordered_stages)


def gold_for(stages: Sequence[Stage], promise: str) -> Stage | None:
    """Return the gold model for a promise, else the one without the forget entities."""
    return only(stages, GOLD[promise]) or only(stages, GOLD["person"])


def only(stages: Sequence[Stage], kind: str) -> Stage | None:
    """Return the only stage of this kind, or None if there are none or several."""
    matches = [stage for stage in stages if stage.kind == kind]
    return matches[0] if len(matches) == 1 else None


def _require_seeds(stage: Stage) -> Stage:
    """Return the stage if its runs may be averaged: one model or recipe, same questions."""
    first = stage.runs[0]
    for run in stage.runs[1:]:
        if difference := _difference(run, first):
            raise UserError(
                f"{first.folder} and {run.folder} are not seeds of one row {stage.name!r}: {difference}. "
                "Give them as stages of their own, or compare them with `unsee compare`."
            )
    return stage


def _difference(run: Record, other: Record) -> str:
    """Return why two runs are no seeds of one row, or empty if they may be."""
    if not (run.made_by or other.made_by) and run.weights and other.weights and run.weights != other.weights:
        return "another model was judged"
    if run.questions != other.questions:
        return "other questions were asked"
    if any(run.decoding[name] != other.decoding[name] for name in run.decoding.keys() & other.decoding.keys()):
        return f"answers were generated with other settings ({dict(other.decoding)} and {dict(run.decoding)})"
    return ""


def beside_gold(stage: Stage, gold_stage: Stage | None) -> Stage:
    """Return the stage with its distances from the gold model."""
    if gold_stage is None or stage.kind in GOLD.values():
        return stage
    gold_run = gold_stage.runs[0]
    runs = tuple(replace(run, scores=_distances(run, gold_run)) for run in stage.runs)
    return replace(stage, runs=runs, gold=gold_stage)


_BESIDE_GOLD: Final = re.compile(r"\.(forget_quality|ks|js|fq)(@|$)")
"""Keys of scores beside a gold model, but for the distance to gold."""


def _distances(run: Record, gold: Record) -> dict[str, Score]:
    """Return all scores with those beside gold.

    If only one side has truth ratios, forget quality is missing with the reason.

    The run's stored scores beside gold are dropped, since they may be of another gold model.
    """
    shared_ids = {response.id for response in same_questions(gold.responses, run.responses)}
    gold_scores = {key: _only(score, shared_ids) for key, score in gold.scores.items()}
    own_scores = {key: score for key, score in run.scores.items() if not _BESIDE_GOLD.search(key)}
    scores = {**own_scores, **gold_distance(run.responses, run.scores, gold_scores)}
    if not any(map(with_false_answers, (*run.responses, *gold.responses))):
        return scores
    reason = incomparable(run.responses, gold.responses)
    if reason:
        return {**scores, "model.fq": no_forget_quality(reason)}
    scores |= against_gold(run.responses, gold.responses)
    return {**scores, "model.fq": forget_quality_score(scores)}


def _only(score: Score, ids: AbstractSet[str]) -> Score:
    """Return a score with the values of some questions only."""
    if score.value_by_index.keys() <= ids:
        return score
    return replace(
        score, value_by_index={index: value for index, value in score.value_by_index.items() if index in ids}
    )
