"""Table of the files that hold private data: level, reason and rewriting."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Any, Final, Literal, get_args

from unsee.config import RECORD
from unsee.config.overrides import dump_yaml, parse_yaml
from unsee.utils.nameless import nameless, nameless_words

Level = Literal["answers", "requests", "caches", "checkpoints", "weights"]
LEVELS: Final[tuple[Level, ...]] = get_args(Level)
DEFAULT: Final[tuple[Level, ...]] = LEVELS[:-1]
"""Levels removed unless others are named: the model stays."""


@dataclass(frozen=True)
class Private:
    """Kind of file, by its path below the folder that unsee made."""

    pattern: str
    """`*` stands for a name, `**` for any path, `|` for "or"."""
    level: Level
    why: str
    """What it holds, in words."""
    rewrite: Callable[[str], str] | None = None
    """What is left of its text. None: the file is removed."""

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        wildcards = {"**": ".*", "*": "[^/]*", "|": "|"}
        parts = re.split(r"(\*\*|\*|\|)", self.pattern)
        return re.compile("".join(wildcards.get(part, re.escape(part)) for part in parts))

    def fits(self, path: PurePath) -> bool:
        """Tell whether a relative path is of this kind."""
        return self._expression.fullmatch(path.as_posix()) is not None


def _without_rows(text: str) -> str:
    """Return scores without the values of single rows, whose keys are the ids."""
    return _json({name: {**score, "value_by_index": {}} for name, score in json.loads(text).items()})


def _judge_scores(text: str) -> str:
    """Return the scores of a judge without the values of single rows."""
    content = json.loads(text)
    rows = {name: {**score, "value_by_index": {}} for name, score in content.get("scores", {}).items()}
    return _json({**content, "scores": rows})


def _lacking(name: str) -> Callable[[str], str]:
    """Return a function that removes what is called `name` from a JSON text."""
    return lambda text: _json(_without(json.loads(text), name))


def _sequence(text: str) -> str:
    """Return the results of a sequence with its requests numbered instead of named."""
    results = json.loads(text)
    tasks = [{**task, "id": f"request {number}"} for number, task in enumerate(results.get("tasks", ()), start=1)]
    settings = results.get("settings", {})
    settings = {**settings, "method": nameless(settings.get("method", {}))}
    return _json({**results, "tasks": tasks, "settings": settings})


def _board(text: str) -> str:
    """Return a leaderboard without data paths, messages and settings that may name people.

    A comparison is returned as it is.
    """
    worlds = json.loads(text)
    if not isinstance(worlds, dict):
        return text
    return _json(
        {name: {**world, "data": "", "rows": list(map(_row, world["rows"]))} for name, world in worlds.items()}
    )


def _index(text: str) -> str:
    """Return the states of a sweep's cells without messages and settings that may name people."""
    return _json([{**cell, "label": _label(cell["label"]), "error": ""} for cell in json.loads(text)])


def _label(label: str) -> str:
    method, _, settings = label.partition(" ")
    return f"{method} {nameless_words(settings)}".strip()


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "settings": nameless_words(row["settings"]), "notes": []}


def _nameless_judged(text: str) -> str:
    """Return what was judged without the data's path and settings that may name people."""
    content = json.loads(text)
    made_by = {key: value for key, value in content.get("made_by", {}).items() if key in _MADE_BY}
    if "method" in made_by:
        made_by["method"] = nameless(made_by["method"])
    return _json({**content, "made_by": made_by})


_MADE_BY: Final = ("model", "method", "training", "plugins", "promise")
"""Parts of a run that judged.json keeps."""


def _run(text: str) -> str:
    """Return the record of a run without the data's path and settings that may name people."""
    values = parse_yaml(text, where=RECORD)
    if not isinstance(values, dict) or "record" not in values:
        return text  # a run file of the user's
    values = {**values, "data": "", "benchmark": "", "method": nameless(values.get("method", {}))}
    if isinstance(values.get("result"), Mapping):
        values["result"] = _figures(values["result"])
    return dump_yaml(values)


def _batch(text: str) -> str:
    """Return what a batch was about without the path of the data."""
    content = json.loads(text)
    return _json({**content, "settings": {**content.get("settings", {}), "data": "", "benchmark": ""}})


_SENTENCES: Final = frozenset({"verdict", "stop_reason", "tuned", "retention"})
"""Parts of a result whose texts hold shares, dates and names of layers only."""


def _figures(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's result without texts that a method noted.

    Such texts may be substitutes and pieces of names.
    """
    figures: dict[str, Any] = {}
    for name, value in result.items():
        if name in _SENTENCES:
            figures[name] = value
        elif isinstance(value, Mapping):
            figures[name] = _figures(value)
        elif not isinstance(value, str | list):
            figures[name] = value
    return figures


def _without(value: Any, name: str) -> Any:
    """Return a JSON value without the lists and mappings called `name`, at any depth.

    Numbers of that name stay.
    """
    if isinstance(value, list):
        return [_without(item, name) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _without(item, name) for key, item in value.items() if key != name or not isinstance(item, list | dict)
    }


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


_BOARD: Final = "messages and settings, which may name rows and people, and the path of the data"
_MESSAGES: Final = "messages, which may name rows"
_SETTINGS: Final = "the path of the data, and settings that may name people"

FILES: Final[tuple[Private, ...]] = (
    Private("report.html|answers.html|leaderboard.html", "answers", "quotes answers and leaks, and shows pictures"),
    Private("leaderboard.md", "answers", _BOARD),
    Private("leaderboard.json", "answers", _BOARD, _board),
    Private("continual.html|continual.md", "answers", "ids of requests"),
    Private("images/*.png", "answers", "pictures that were asked about"),
    Private("vocabulary.json", "answers", "names and facts of everybody in the data"),
    Private("verdicts.jsonl", "answers", "replies of the judge, which may repeat answers"),
    Private("samples.jsonl|**/samples.jsonl", "answers", "ids of rows and entities"),
    Private("logs/*.log|failed/*.txt|chosen.json|tried.json", "answers", _MESSAGES),
    Private("index.json", "answers", _MESSAGES, _index),
    Private("slurm/**", "answers", "jobs and their messages"),
    Private("responses.keys.jsonl", "answers", "ids of rows"),
    Private("responses.jsonl", "answers", "questions, reference answers, private strings, and what the model said"),
    Private("scores.json", "answers", "ids of rows", _without_rows),
    Private("attacks.json|attacks-*.json", "answers", "ids of forgotten entities", _lacking("recovered")),
    Private("safety.json", "answers", "ids of rows", _lacking("failures")),
    Private("factuality.json", "answers", "ids of rows", _judge_scores),
    Private("request.yaml", "requests", "who is to be forgotten: name and its forms"),
    Private("data.jsonl", "requests", "rows about the people of deletion requests, and about those who are kept"),
    Private("*.request.json|adapters/*.request.json", "requests", "entities of a request, and the path of the data"),
    Private("continual.yaml", "requests", "requests: ids and entities"),
    Private("grid.yaml|leaderboard.yaml|jobs/*.yaml", "requests", _SETTINGS),
    Private("batch.json", "requests", "the path of the data", _batch),
    Private(RECORD, "requests", _SETTINGS, _run),
    Private("judged.json", "requests", _SETTINGS, _nameless_judged),
    Private("continual.json", "requests", "ids of requests", _sequence),
    Private("work/**", "caches", "answers that the original model gave about the person, and masks"),
    Private("cache/responses/*.jsonl", "caches", "answers, shared by the runs beside it"),
    Private("cache/likelihoods/*.jsonl", "caches", "log-probabilities of answers, shared by the runs beside it"),
    Private(
        "cache/attacks.jsonl", "caches", "what attacks brought back from gold models, shared by the runs beside it"
    ),
    Private("cache/features/**", "caches", "image features, shared by the runs beside it"),
    Private("cache/masks/*.safetensors", "caches", "masks of weights, shared by the runs beside it"),
    Private("checkpoints/**", "checkpoints", "weights and optimizer state of an unfinished run"),
    Private("last_good/**", "checkpoints", "weights before a step that failed"),
    Private("model/**", "weights", "the model, its card, and an instruction that inference needs"),
    Private("*model.*part/**", "weights", "a model that a killed process was writing or replacing"),
    Private("adapters/*/**", "weights", "the adapter of one request"),
)
"""Files with private data. Of several that fit one file, removal comes before rewriting."""
