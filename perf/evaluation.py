"""Evaluation speed in questions per second: one at a time, against unsee.

"unsee" reads letters off one forward pass and generates the open answers, all behind the same image prefix
(`unsee.inference.likelihood.answer`);
"evaluate" is `unsee.evaluate` as a whole, which generates every answer and writes and scores the record.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, cast
from unittest.mock import patch

import torch

from perf.conventional import answers, prompted
from perf.subject import LETTERS, Subject
from perf.timing import paired, rounded, spread, timed
from unsee.api import VLM, Benchmark, Example, Session, Training, Vocabulary
from unsee.api.request import Prompt, Target
from unsee.data.shared_cache import VARIABLE
from unsee.evaluation.evaluate import evaluate
from unsee.inference import encoder, vision_cache
from unsee.inference.likelihood import Choice, answer

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
    """Return questions per second of all sides on the questions about the first images."""
    loaded, session, questions = prepare(subject, images)
    asked = [Target(example=example) for example in questions]
    answers(loaded.model, session, asked[:1])
    sides: dict[str, Callable[[], list[str]]] = {
        "conventional": lambda: answers(loaded.model, session, asked),
        "unsee": lambda: fast(loaded, questions),
        "evaluate": lambda: recorded(loaded, questions),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    texts: dict[str, list[str]] = {}
    for _ in range(repetitions):
        for name, work in sides.items():
            nothing_remembered()
            spent, texts[name] = timed(work)
            seconds[name].append(spent)
    speedup, whole = (paired(seconds["conventional"], seconds[name]) for name in ("unsee", "evaluate"))
    count = len(questions)
    return {
        "speedup": speedup["median"],
        "speedup_spread": speedup,
        "speedup_evaluate": whole["median"],
        "questions": count,
        "images": len({example.image.key for example in questions if example.image}),
        "letters": sum(lettered(example) for example in questions),
        "questions_per_second": {name: rounded(count / spread(values)["median"]) for name, values in seconds.items()},
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "repetitions": repetitions,
        "same_text": _same(questions, texts["conventional"], texts["unsee"]),
        "same_letter": _same_letters(session, questions, texts["unsee"]),
    }


def lettered(example: Example) -> bool:
    """Tell whether a question is answered with the letter of an option."""
    return bool(example.options) and example.answer in LETTERS


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


def fast(loaded: VLM, questions: Sequence[Example], limit: int = LIMIT) -> list[str]:
    """Read letters off one forward pass, generate the others, with one image encoding."""
    asked = [
        (Prompt.of(example), LETTERS[: len(example.options)] if lettered(example) else "") for example in questions
    ]
    said = answer(loaded, asked, max_new_tokens=limit)
    return [LETTERS[one.index] if isinstance(one, Choice) else one.text for one in said]


def recorded(loaded: VLM, questions: Sequence[Example]) -> list[str]:
    """Evaluate through `unsee.evaluate` into a fresh folder, with records and scores."""
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, {VARIABLE: "off"}):
        out = Path(folder) / "run"
        evaluate(loaded, Questions(questions), out, max_new_tokens=LIMIT, progress=False)
        lines = (out / "responses.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


def _same(questions: Sequence[Example], theirs: Sequence[str], ours: Sequence[str]) -> float:
    """Return the share of generated answers with the same text on both sides."""
    pairs = [(a, b) for question, a, b in zip(questions, theirs, ours, strict=True) if not lettered(question)]
    return rounded(sum(a == b for a, b in pairs) / max(1, len(pairs)))


def _same_letters(session: Session, questions: Sequence[Example], ours: Sequence[str]) -> float:
    """Return the share of letters that a plain forward pass of the prompt finds most probable, too."""
    pairs = [(example, text) for example, text in zip(questions, ours, strict=True) if lettered(example)]
    return rounded(sum(likeliest_letter(session, example) == text for example, text in pairs) / max(1, len(pairs)))


def likeliest_letter(session: Session, example: Example) -> str:
    """Return the letter with the most probability after the prompt, with or without a leading space."""
    tokenizer = session.processor.tokenizer
    inputs = prompted(session, example)
    with torch.no_grad():
        probability_v = cast("Any", session.model)(**inputs).logits[0, -1].float().softmax(-1)
    scores = []
    for letter in LETTERS[: len(example.options)]:
        forms = {tuple(tokenizer(form, add_special_tokens=False)["input_ids"]) for form in (letter, f" {letter}")}
        scores.append(sum(float(probability_v[ids[0]]) for ids in forms if len(ids) == 1))
    return LETTERS[max(range(len(scores)), key=scores.__getitem__)]


def memory_work(side: str, subject: Subject, images: int) -> None:
    """Do one side once."""
    loaded, session, questions = prepare(subject, images)
    if side == "unsee":
        fast(loaded, questions)
    else:
        answers(loaded.model, session, [Target(example=example) for example in questions])
