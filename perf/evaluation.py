"""Evaluation: questions a second, one at a time with 50 tokens for a letter, against `unsee.evaluate`."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from perf.conventional import answers
from perf.subject import Subject, device
from perf.timing import paired, rounded, spread, timed
from unsee.api import Benchmark, Example, Session, Training, Vocabulary
from unsee.batching import Target
from unsee.evaluate import evaluate
from unsee.models import Loaded

LIMIT: Final = 50
"""New tokens of an answer, as in the published evaluations."""


@dataclass(frozen=True)
class Questions(Benchmark):
    """The questions of a subject as a benchmark."""

    name: ClassVar[str] = "perf"
    judged: Sequence[Example]

    def examples(self, split: Literal["train", "eval"]) -> Sequence[Example]:  # noqa: ARG002 - nothing is trained on
        """Return the questions."""
        return self.judged

    def vocabulary(self) -> Vocabulary:
        """Return nothing that could be claimed."""
        return Vocabulary()


def measure(subject: Subject, images: int, repetitions: int) -> dict[str, Any]:
    """Return questions a second of both sides on the questions about the first images."""
    loaded, session, questions = prepare(subject, images)
    asked = [Target(example=example) for example in questions]
    answers(loaded.model, session, asked[:1])
    seconds: dict[str, list[float]] = {"conventional": [], "unsee": []}
    texts: dict[str, list[str]] = {}
    for _ in range(repetitions):
        spent, texts["conventional"] = timed(lambda: answers(loaded.model, session, asked))
        seconds["conventional"].append(spent)
        spent, texts["unsee"] = timed(lambda: fast(loaded, questions))
        seconds["unsee"].append(spent)
    speedup = paired(seconds["conventional"], seconds["unsee"])
    count = len(questions)
    return {
        "speedup": speedup["median"],
        "speedup_spread": speedup,
        "questions": count,
        "images": len({example.image.key for example in questions if example.image}),
        "questions_per_second": {name: rounded(count / spread(values)["median"]) for name, values in seconds.items()},
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "repetitions": repetitions,
        "same_text": _same(questions, texts["conventional"], texts["unsee"]),
    }


def prepare(subject: Subject, images: int) -> tuple[Loaded, Session, list[Example]]:
    """Return the model for both sides, and all questions about the first images."""
    loaded = Loaded(
        model=subject.model().to(device()).eval(),
        processor=subject.processor,
        family=subject.family,
        instruction="",
        base=None,
    )
    keys = list(dict.fromkeys(example.image.key for example in subject.judged if example.image))[:images]
    questions = [example for example in subject.judged if example.image and example.image.key in keys]
    session = Session(
        model=loaded.model,
        processor=loaded.processor,
        family=loaded.family,
        examples={},
        training=Training(),
        seed=0,
        out=Path(),
    )
    return loaded, session, questions


def fast(loaded: Loaded, questions: Sequence[Example]) -> list[str]:
    """Answer through `unsee.evaluate`, into a fresh folder: answers, records and scores."""
    import json

    from unsee.store import VARIABLE

    with tempfile.TemporaryDirectory() as folder, _environment(VARIABLE, "off"):
        out = Path(folder) / "run"
        evaluate(loaded, Questions(questions), out, max_new_tokens=LIMIT, progress=False)
        lines = (out / "responses.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


def _environment(name: str, value: str) -> Any:
    import os
    from unittest.mock import patch

    return patch.dict(os.environ, {name: value})


def _same(questions: Sequence[Example], theirs: Sequence[str], ours: Sequence[str]) -> float:
    """Return the share of open questions with the same text on both sides (letters are scored, and so not comparable)."""
    pairs = [(a, b) for question, a, b in zip(questions, theirs, ours, strict=True) if not question.options]
    return rounded(sum(a == b for a, b in pairs) / max(1, len(pairs)))


def memory_work(side: str, subject: Subject, images: int) -> None:
    """Do one side once."""
    loaded, session, questions = prepare(subject, images)
    if side == "unsee":
        fast(loaded, questions)
    else:
        answers(loaded.model, session, [Target(example=example) for example in questions])
