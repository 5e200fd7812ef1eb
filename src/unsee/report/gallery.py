"""Gallery of responses side by side, with images and marked private strings."""

from __future__ import annotations

import base64
import io
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unsee.api import PROBES, Kind, Response, Role
from unsee.api.pictures import decode_image
from unsee.errors import UserError
from unsee.metrics.scripts import whole
from unsee.report.read import Record, Stage
from unsee.report.summary import CLASSES
from unsee.scoring.against_gold import alike

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
"""Longest response in characters; longer ones are truncated."""
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

    Where no aftermath class is defined (people to keep, general questions): "right", else what went wrong if known.
    """
    index = response.id
    role = run.group_of.get(index, response.role.value)
    flags = [name for name in CLASSES if _value(run, f"{role}.{name}", index) == 1]
    if f"{role}.{CLASSES[-1]}" in run.scores and flags:
        return flags[0]
    flags = flags or [name for key, name in HAZARDS.items() if _value(run, f"{role}.{key}", index) == 1]
    right = _rightness(run, role, index)
    return flags[0] if flags and right != "right" else right


def _value(run: Record, key: str, index: str) -> float | None:
    score = run.scores.get(key)
    return None if score is None else score.value_by_index.get(index)


KNOWN_NAME = "known_name"


def _rightness(run: Record, role: str, index: str) -> str:
    for key in ("name", "fact", "visible", "chain", "choice", "cloze", "accuracy", KNOWN_NAME):
        value = _value(run, f"{role}.{key}", index)
        if value is not None:
            return "right" if (value >= 0.5) != (key == KNOWN_NAME) else "wrong"
    return ""


def cards(stages: Sequence[Stage]) -> list[Card]:
    """Return diverse cards of each stage's first seed, over roles, classes, people and kinds."""
    runs = [stage.runs[0] for stage in stages]
    chosen = [index for role, most in SHARE.items() for index in _diverse(runs, role, most)]
    return [card(stages, index) for index in chosen[:CARDS]]


def _diverse(runs: Sequence[Record], role: Role, most: int) -> list[str]:
    """Greedily pick the question with the most new classes (by model), people and kinds."""
    pool = {
        index: _traits(runs, response)
        for run in runs[:1]
        for index, response in run.by_id.items()
        if response.role == role and (role not in (Role.UNSEEN, Role.FORGET) or response.kind in (*PROBES, Kind.HAZARD))
    }
    seen: dict[str, int] = {}
    picked: list[str] = []
    while pool and len(picked) < most:
        best = max(pool, key=lambda index: sum(1 / (1 + seen.get(trait, 0)) for trait in pool[index]))
        for trait in pool.pop(best):
            seen[trait] = seen.get(trait, 0) + 1
        picked.append(best)
    return picked


def _traits(runs: Sequence[Record], response: Response) -> list[str]:
    verdicts = [f"{run.stage}:{verdict_of(run, said)}" for run in runs if (said := same(run, response))]
    return [*verdicts, f"entity:{response.entity}", f"image:{response.image}", f"kind:{response.kind}:{response.fact}"]


def same(run: Record, response: Response) -> Response | None:
    """Return the run's response to the same question, or None if that was not asked.

    Two data sets may number their questions alike.
    """
    said = run.by_id.get(response.id)
    return said if said is not None and alike(said, response) else None


def card(stages: Sequence[Stage], index: str) -> Card:
    """Return the card of question `index`."""
    runs = [stage.runs[0] for stage in stages]
    asked = next(run for run in runs if index in run.by_id)
    response = asked.by_id[index]
    return Card(
        role=response.role,
        question=printable(response.question),
        reference=printable(response.answer),
        picture=picture(asked.folder, response),
        answers=tuple(
            answer(stage.name, stage.label, run, said)
            for stage, run in zip(stages, runs, strict=True)
            if (said := same(run, response))
        ),
    )


def answer(stage: str, label: str, run: Record, response: Response, signs: int = SIGNS) -> Answer:
    """Return one model's response, truncated to `signs`, private strings marked if it leaks.

    Args:
        stage: Name of the model that said it.
        label: What the page calls that model.
        run: Run that the response is from; its scores give the verdict.
        response: What was asked and said.
        signs: Characters shown; the answer tells the full number if it is longer.
    """
    text, verdict = printable(response.text), verdict_of(run, response)
    forms = [form for forms in response.private.values() for form in forms] if verdict == "leak" else []
    asked = fold(response.question)[0]
    return Answer(
        stage=stage,
        label=label,
        verdict=verdict,
        pieces=tuple(pieces(text[:signs], [form for form in forms if not _spans(asked, form)])),
        cut=len(text) if len(text) > signs else 0,
    )


def printable(text: str) -> str:
    """Return the text with control and bidirectional characters and lone surrogates visible."""
    return "".join(
        " "
        if sign in "\n\t"
        else "\N{REPLACEMENT CHARACTER}"
        if unicodedata.category(sign) in ("Cc", "Cf", "Cs")
        else sign
        for sign in text
    ).strip()


def fold(text: str) -> tuple[str, list[int]]:
    """Return the text without case and accents, and each character's original index."""
    folded = [
        (sign, place)
        for place, original in enumerate(text)
        for sign in unicodedata.normalize("NFKD", original).casefold()
        if not unicodedata.combining(sign)
    ]
    return "".join(sign for sign, _ in folded), [place for _, place in folded]


def _spans(folded: str, form: str) -> list[tuple[int, int]]:
    wanted = r"[\s\-]+".join(re.escape(word) for word in re.split(r"[\s\-]+", fold(form)[0].strip()))
    spans = (match.span() for match in re.finditer(wanted, folded)) if wanted else ()
    return [(start, end) for start, end in spans if whole(folded, start, end)]


def pieces(text: str, forms: Iterable[str]) -> list[Piece]:
    """Split the text so that whole-word occurrences of private forms are marked."""
    folded, places = fold(text)
    spans = (span for form in forms for span in _spans(folded, form))
    marked = {place for start, end in spans for place in range(places[start], places[end - 1] + 1)}
    parts: list[Piece] = []
    for place, sign in enumerate(text):
        private = place in marked
        if parts and parts[-1].private == private:
            parts[-1] = Piece(text=parts[-1].text + sign, private=private)
        else:
            parts.append(Piece(text=sign, private=private))
    return parts


def picture(folder: Path, response: Response) -> str:
    """Return the response's image as a small data URI, or empty if there is none."""
    if not response.image:
        return ""
    try:
        small = decode_image(folder / response.image)
    except UserError:
        return ""
    side = max(small.size)
    small.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    form = "PNG" if side <= SIDE else "JPEG"
    small.save(buffer, form, optimize=True)
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


@dataclass(frozen=True, kw_only=True)
class Face:
    """Forget entity in the header of the report."""

    name: str
    picture: str


def faces(stages: Sequence[Stage], most: int = 8) -> list[Face]:
    """Return image and name of the first forget entities."""
    found: dict[str, Face] = {}
    for role in (Role.UNSEEN, Role.FORGET):
        for response in stages[0].runs[0].responses:
            if response.role == role and response.entity not in found and response.image and len(found) < most:
                name = next(iter(response.private.get("name", ())), response.entity)
                found[response.entity] = Face(name=printable(name), picture=picture(stages[0].runs[0].folder, response))
    return list(found.values())


def showcase(stages: Sequence[Stage], role: str) -> str | None:
    """Return the open question in `role` on which most models show their usual class."""
    runs = [stage.runs[0] for stage in stages]
    usual = {run.stage: _usual(run, role) for run in runs}
    kinds = (*PROBES, Kind.HAZARD)
    asked = [response for response in runs[0].responses if response.role == role and response.kind in kinds]
    opened = [response for response in asked if response.kind == Kind.OPEN] or asked
    if not opened:
        return None
    typical = {
        response.id: sum(
            verdict_of(run, said) == usual[run.stage] for run in runs if (said := same(run, response)) is not None
        )
        for response in opened
    }
    return max(typical, key=lambda index: typical[index])


def _usual(run: Record, role: str) -> str:
    scores = {name: run.scores.get(f"{role}.{name}") for name in CLASSES}
    return max(CLASSES, key=lambda name: (score.value or 0.0) if (score := scores[name]) is not None else 0.0)
