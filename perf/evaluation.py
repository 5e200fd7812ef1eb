"""Evaluation speed in questions per second: one at a time, against `unsee.evaluate`, which also records and scores."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import eq
from pathlib import Path
from typing import Any, ClassVar, Final, Literal
from unittest.mock import patch

from perf.conventional import answers
from perf.subject import Subject
from perf.timing import paired, rounded, spread, timed
from unsee.api import VLM, Benchmark, Example, Session, Training, Vocabulary
from unsee.api.request import Target
from unsee.data.shared_cache import VARIABLE
from unsee.evaluation.evaluate import evaluate
from unsee.inference import encoder, vision_cache

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
    """Return questions per second of both sides on the questions about the first images."""
    loaded, session, questions = prepare(subject, images)
    asked = [Target(example=example) for example in questions]
    answers(loaded.model, session, asked[:1])
    sides: dict[str, Callable[[], list[str]]] = {
        "conventional": lambda: answers(loaded.model, session, asked),
        "unsee": lambda: recorded(loaded, questions),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    texts: dict[str, list[str]] = {}
    for _ in range(repetitions):
        for name, work in sides.items():
            nothing_remembered()
            spent, texts[name] = timed(work)
            seconds[name].append(spent)
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
        "same_text": rounded(sum(map(eq, texts["conventional"], texts["unsee"])) / count),
    }


def nothing_remembered() -> None:
    """Clear unsee's memory caches, so that each repetition starts cold."""
    encoder._ENCODERS.clear()
    vision_cache._CACHES.clear()


def prepare(subject: Subject, images: int) -> tuple[VLM, Session, list[Example]]:
    """Return the model for both sides, and all questions about the first images."""
    loaded = VLM(
        model=subject.placed().eval(),
        processor=subject.processor,
        family=subject.family,
    )
    keys = list(dict.fromkeys(example.image.key for example in subject.judged if example.image))[:images]
    questions = [example for example in subject.judged if example.image and example.image.key in keys]
    return loaded, asking(loaded), questions


def asking(loaded: VLM) -> Session:
    """Return a session on the model without examples, for the conventional way of asking."""
    return Session(
        vlm=loaded,
        examples={},
        training=Training(),
        seed=0,
        out=Path(),
    )


def recorded(loaded: VLM, questions: Sequence[Example], limit: int = LIMIT) -> list[str]:
    """Evaluate through `unsee.evaluate` into a fresh folder, with records and scores."""
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, {VARIABLE: "off"}):
        out = Path(folder) / "run"
        evaluate(loaded, Questions(questions), out, max_new_tokens=limit, progress=False)
        lines = (out / "responses.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


def memory_work(side: str, subject: Subject, images: int) -> None:
    """Do one side once."""
    loaded, session, questions = prepare(subject, images)
    if side == "unsee":
        recorded(loaded, questions)
    else:
        answers(loaded.model, session, [Target(example=example) for example in questions])
