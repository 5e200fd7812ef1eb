"""Gallery of responses side by side, with images and marked private strings."""

from __future__ import annotations

import base64
import io
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from unsee.api import PROBES, Kind, Response, Role
from unsee.api.pictures import decode_image
from unsee.errors import UserError
from unsee.metrics.scripts import is_whole_word
from unsee.report.printable import printable
from unsee.report.read import Record, Stage
from unsee.report.summary import CLASSES
from unsee.scoring.against_gold import alike
from unsee.scoring.conditions import group_of
from unsee.utils.grouping import by_key

CARDS = 36
"""Most cards in the gallery."""
SHARE: Mapping[Role, int] = {
    Role.UNSEEN: 14,
    Role.FORGET: 4,
    Role.RETAIN: 7,
    Role.BENIGN: 6,
    Role.STRANGER: 4,
    Role.FORGET_TEXT: 3,
    Role.RETAIN_TEXT: 2,
    Role.GENERAL: 2,
}
"""Most cards per role."""
SIGNS = 320
"""Characters of a response that are shown; longer ones are truncated."""
FACES = 8
"""Most forget entities in the header of the report."""
SIDE = 128
"""Largest side of an embedded image in pixels."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Part of a response. Private parts are marked."""

    text: str
    private: bool


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Response of one model."""

    stage: str
    label: str
    verdict: str
    """Aftermath class; else "right", "wrong" or ""."""
    pieces: tuple[Piece, ...]
    cut: int
    """Full length of a truncated response, else 0."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """One question about one image, with the responses of all models."""

    role: Role
    question: str
    reference: str
    picture: str
    """Data URI; empty for a text-only question."""
    answers: tuple[Answer, ...]

    @property
    def classes(self) -> str:
        """The verdicts on the card, for the filter."""
        return " ".join(dict.fromkeys(answer.verdict for answer in self.answers if answer.verdict))


HAZARDS: Mapping[str, str] = {"asr_proxy": "leak", "gibberish": "degenerate", "rr_proxy": "refusal"}
"""Classes of responses about hazards and look-alikes, worst first."""


def verdict_of(run: Record, response: Response) -> str:
    """Return the class in the run's own scores, so that gallery and figures agree.

    Without an aftermath class (retain entities, general questions): "right", else the kind of error if known.
    """
    index = response.id
    role = run.group_of.get(index, response.role.value)
    outcomes = [name for name in CLASSES if run.value_of(f"{role}.{name}", index) == 1]
    if f"{role}.{CLASSES[-1]}" in run.scores and outcomes:
        return outcomes[0]
    outcomes = outcomes or [name for key, name in HAZARDS.items() if run.value_of(f"{role}.{key}", index) == 1]
    correctness = _rightness(run, role, index)
    return outcomes[0] if outcomes and correctness != "right" else correctness


KNOWN_NAME = "known_name"


def _rightness(run: Record, role: str, index: str) -> str:
    for key in ("name", "fact", "visible", "chain", "choice", "cloze", "accuracy", KNOWN_NAME):
        value = run.value_of(f"{role}.{key}", index)
        if value is not None:
            return "right" if (value >= 0.5) != (key == KNOWN_NAME) else "wrong"
    return ""


def cards(stages: Sequence[Stage]) -> list[Card]:
    """Return diverse cards of each stage's first seed, over roles, classes, people and kinds."""
    runs = [stage.runs[0] for stage in stages]
    indices = [index for role, limit in SHARE.items() for index in _diverse(runs, role, limit)]
    return [card(stages, index) for index in indices[:CARDS]]


def _diverse(runs: Sequence[Record], role: Role, limit: int) -> list[str]:
    """Greedily pick the question with the most new classes (by model), people and kinds."""
    traits_by_index = {
        index: _traits(runs, response)
        for run in runs[:1]
        for index, response in run.by_id.items()
        if shown_role(response) == role
        and (role not in (Role.UNSEEN, Role.FORGET) or response.kind in (*PROBES, Kind.HAZARD))
    }
    trait_counts: dict[str, int] = {}
    indices: list[str] = []
    while traits_by_index and len(indices) < limit:
        best = max(
            traits_by_index,
            key=lambda index: sum(1 / (1 + trait_counts.get(trait, 0)) for trait in traits_by_index[index]),
        )
        for trait in traits_by_index.pop(best):
            trait_counts[trait] = trait_counts.get(trait, 0) + 1
        indices.append(best)
    return indices


def shown_role(response: Response) -> Role:
    """Return the role that a question is shown under: without a picture, that of questions by name."""
    group = group_of(response)
    return Role(group) if group in set(Role) else response.role


def _traits(runs: Sequence[Record], response: Response) -> list[str]:
    verdicts = [
        f"{number}:{verdict_of(run, run_response)}"
        for number, run in enumerate(runs)
        if (run_response := same(run, response))
    ]
    return [*verdicts, f"entity:{response.entity}", f"image:{response.image}", f"kind:{response.kind}:{response.fact}"]


def same(run: Record, response: Response) -> Response | None:
    """Return the run's response to the same question, or None if that was not asked.

    Questions of two data sets may share an id.
    """
    run_response = run.by_id.get(response.id)
    return run_response if run_response is not None and alike(run_response, response) else None


def card(stages: Sequence[Stage], index: str) -> Card:
    """Return the card of question `index`."""
    runs = [stage.runs[0] for stage in stages]
    source_run = next(run for run in runs if index in run.by_id)
    response = source_run.by_id[index]
    return Card(
        role=shown_role(response),
        question=printable(response.question),
        reference=printable(response.answer),
        picture=picture(source_run.folder, response),
        answers=tuple(
            answer(stage.name, stage.label, run, run_response)
            for stage, run in zip(stages, runs, strict=True)
            if (run_response := same(run, response))
        ),
    )


def answer(stage: str, label: str, run: Record, response: Response, signs: int = SIGNS) -> Answer:
    """Return one model's response, truncated to `signs`, private strings marked if it leaks.

    Args:
        stage: Name of the model that gave the response.
        label: Display name of that model.
        run: Run that the response is from; its scores give the verdict.
        response: Question and response.
        signs: Characters shown; a longer response is cut around its first private string and its full length stored.
    """
    text, verdict = printable(response.text), verdict_of(run, response)
    folded_question = fold(response.question)[0]
    all_forms = (form for forms in response.private.values() for form in forms if verdict == "leak")
    forms = [form for form in all_forms if not _spans(folded_question, form)]
    return Answer(
        stage=stage,
        label=label,
        verdict=verdict,
        pieces=tuple(pieces(_part_shown(text, forms, signs), forms)),
        cut=len(text) if len(text) > signs else 0,
    )


def _part_shown(text: str, forms: Sequence[str], signs: int) -> str:
    """Return the beginning of the text, or the part around its first private string if that lies behind it."""
    first, *others = pieces(text, forms) if len(text) > signs else [Piece(text="", private=False)]
    before = len(first.text) if others and not first.private else 0
    if before < signs:
        return text[:signs]
    return f"… {text[before - signs // 4 : before + signs - signs // 4]}"


def fold(text: str) -> tuple[str, list[int]]:
    """Return the text without case and accents, and each character's original index."""
    folded = [
        (char, index)
        for index, original in enumerate(text)
        for char in unicodedata.normalize("NFKD", original).casefold()
        if not unicodedata.combining(char)
    ]
    return "".join(char for char, _ in folded), [index for _, index in folded]


def _spans(folded: str, form: str) -> list[tuple[int, int]]:
    pattern = r"[\W_]+".join(filter(None, re.split(r"[\W_]+", fold(form)[0])))  # as `contains` reads texts
    spans = (match.span() for match in re.finditer(pattern, folded)) if pattern else ()
    return [(start, end) for start, end in spans if is_whole_word(folded, start, end)]


def pieces(text: str, forms: Iterable[str]) -> list[Piece]:
    """Split the text into pieces, with whole-word occurrences of private forms marked."""
    folded, indices = fold(text)
    spans = (span for form in forms for span in _spans(folded, form))
    private_indices = {index for start, end in spans for index in range(indices[start], indices[end - 1] + 1)}
    parts: list[Piece] = []
    for index, char in enumerate(text):
        private = index in private_indices
        if parts and parts[-1].private == private:
            parts[-1] = Piece(text=parts[-1].text + char, private=private)
        else:
            parts.append(Piece(text=char, private=private))
    return parts


def picture(folder: Path, response: Response) -> str:
    """Return the response's image as a small data URI, or empty if there is none."""
    if not response.image:
        return ""
    try:
        image = decode_image(folder / response.image)
    except UserError:
        return ""
    longest_side = max(image.size)
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image_format = "PNG" if longest_side <= SIDE else "JPEG"
    image.save(buffer, image_format, optimize=True)
    return f"data:image/{image_format.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


@dataclass(frozen=True, kw_only=True)
class Face:
    """Forget entity in the header of the report."""

    name: str
    picture: str


def faces(stages: Sequence[Stage]) -> list[Face]:
    """Return image and name of the first forget entities."""
    run = stages[0].runs[0]
    responses_by_entity = by_key(
        (response.entity, response)
        for role in (Role.UNSEEN, Role.FORGET)
        for response in run.responses
        if response.role == role and response.image
    )
    return [
        Face(
            name=printable(next(iter(responses[0].private.get("name", ())), entity)),
            picture=picture(run.folder, responses[0]),
        )
        for entity, responses in islice(responses_by_entity.items(), FACES)
    ]


def showcase(stages: Sequence[Stage], role: str) -> str | None:
    """Return the open question in `role` on which most models show their usual class."""
    runs = [stage.runs[0] for stage in stages]
    usual_classes = [_usual(run, role) for run in runs]
    kinds = (*PROBES, Kind.HAZARD)
    responses = [response for response in runs[0].responses if shown_role(response) == role and response.kind in kinds]
    open_responses = [response for response in responses if response.kind == Kind.OPEN] or responses
    if not open_responses:
        return None
    typical_counts = {
        response.id: sum(
            verdict_of(run, run_response) == usual_class
            for run, usual_class in zip(runs, usual_classes, strict=True)
            if (run_response := same(run, response)) is not None
        )
        for response in open_responses
    }
    return max(typical_counts, key=lambda index: typical_counts[index])


def _usual(run: Record, role: str) -> str:
    scores = {name: run.scores.get(f"{role}.{name}") for name in CLASSES}
    return max(CLASSES, key=lambda name: (score.value or 0.0) if (score := scores[name]) is not None else 0.0)
