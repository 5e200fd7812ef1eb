"""Questions to a model about the people of requests, and about strangers as controls."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final, Literal

from unsee.api import PROBES, VLM, Benchmark, Example, ImageSource, Kind, Response, Role, Victim, Vocabulary
from unsee.api.benchmark import NoSettings
from unsee.attacks.sampling import Sampling
from unsee.config import EvalConfig
from unsee.data.people import vocabulary_of
from unsee.errors import UserError
from unsee.evaluation.evaluate import evaluate, read_answers
from unsee.evaluation.recovery import LONGER
from unsee.metrics.degeneration import degenerate
from unsee.metrics.matching import leaked_facts
from unsee.report.attacked import COLLAPSED
from unsee.workflows.requests.questions import controls
from unsee.workflows.requests.surfaces import Share, Surface, Word, attack_surface, says_nothing_yet, shares

CONTROLS: Final = 5
"""Strangers used as controls; more of them narrow the chance interval [inferred]."""
KEPT_ROLES: Final = (Role.RETAIN, Role.RETAIN_TEXT, Role.GENERAL)
RECALLS: Final = ("name", "fact", "visible", "choice", "cloze", "chain.answer", "accuracy")
"""Scores on the retain set."""


class Questions(Benchmark):
    """Rows in memory, as data for evaluation."""

    name = "rows"
    layout = ""

    def __init__(self, rows: Sequence[Example]) -> None:
        """Store the rows."""
        self.settings, self._rows = NoSettings(), list(rows)

    def examples(self, split: Literal["train", "eval"]) -> Sequence[Example]:  # noqa: ARG002 - the rows are for judging
        """Return the rows."""
        return self._rows

    def vocabulary(self) -> Vocabulary:
        """Return the names and private values of the rows."""
        return vocabulary_of((row.entity, row.private) for row in self._rows)


def open_vlm(model: str) -> VLM:
    """Open a model for several evaluations."""
    from unsee.models.checkpoint import load

    return load(model)


def ask(model: VLM, rows: Sequence[Example], *, tokens: int | None = None) -> list[Response]:
    """Return a model's greedy answers of at most so many tokens (None = as evaluations), without storing them."""
    if not rows:
        return []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        evaluate(model, Questions(rows), place / "asked", stage="asked", images_dir=place, max_new_tokens=tokens)
        return read_answers(place / "asked")


def ask_fully(model: VLM, rows: Sequence[Example]) -> list[Response]:
    """Return a model's answers for a verdict: those cut before they gave anything away are asked for again, longer."""
    return longer(model, rows, ask(model, rows))


def longer(model: VLM, rows: Sequence[Example], responses: Sequence[Response]) -> list[Response]:
    """Return the answers, with longer ones to the questions whose answer was cut before it gave anything away."""
    cut_ids = {response.id for response in responses if says_nothing_yet(response)}
    if not cut_ids:
        return list(responses)
    cut_rows = [row for row in rows if row.id in cut_ids]
    longer_answers = ask(model, cut_rows, tokens=LONGER * EvalConfig().max_new_tokens)
    answers_by_id = {response.id: response for response in longer_answers}
    return [answers_by_id.get(response.id, response) for response in responses]


def sampled_surface(model: VLM, rows: Sequence[Example], entity: str) -> Surface:
    """Return what the best of several sampled answers gives away, compared with strangers.

    A model may know what its greedy answer does not say.

    Args:
        model: Model to sample answers from.
        rows: Questions about the person and about the strangers used as controls.
        entity: Identifier of the person in the rows.
    """
    with tempfile.TemporaryDirectory() as folder:
        victim = Victim(open=lambda: model, benchmark=Questions(rows), work=Path(folder), seed=0)
        try:
            findings = [{**asdict(finding), "mean": finding.mean} for finding in Sampling(images=1).quick().run(victim)]
        except UserError as error:  # nothing to sample, such as no question about a private string
            return Surface(verdict="not_measured", why=str(error))
    surface = attack_surface({"findings": {"model": findings}}, entity, controls_of(entity), known=True)
    verdict: Word = "no_baseline" if surface.verdict == "erased" else surface.verdict
    return replace(surface, verdict=verdict, before=surface.after, after=None)


def retain_recall(model: VLM, data: Benchmark) -> dict[str, float | None]:
    """Return the recall scores of a model on the retain set, none where the data have no such rows."""
    if not any(row.role in KEPT_ROLES for row in data.examples("eval")):
        return {}
    with tempfile.TemporaryDirectory() as folder:
        scores = evaluate(model, data, Path(folder) / "kept", roles=KEPT_ROLES, images_dir=Path(folder))
    return {name: score.value for name, score in scores.items() if name.partition(".")[2] in RECALLS}


def with_own_answers(rows: Sequence[Example], responses: Sequence[Response]) -> list[Example]:
    """Return the rows with the model's responses as answers, without empty ones."""
    answers = {response.id: response.text.strip() for response in responses}
    return [replace(row, answer=answers[row.id]) for row in rows if answers.get(row.id)]


def strangers_of(data: Benchmark | None) -> list[ImageSource]:
    """Return the distinct pictures of strangers, who occur in no training data."""
    rows = () if data is None else data.examples("eval")
    images_by_key = {row.image.key: row.image for row in rows if row.role is Role.STRANGER and row.image is not None}
    return list(images_by_key.values())


def with_controls(
    rows: Sequence[Example], strangers: Sequence[ImageSource], forms: Mapping[str, Sequence[str]]
) -> list[Example]:
    """Return the rows and, per person, the same questions about strangers.

    `forms`: entity -> forms of the name.
    """
    extended_rows = list(rows)
    for entity, names in forms.items():
        person_rows = [row for row in rows if row.entity == entity]
        control_rows = controls(person_rows, strangers, names, CONTROLS)
        extended_rows += [replace(row, entity=control_of(entity, row.entity)) for row in control_rows]
    return extended_rows


def control_of(entity: str, stranger: str) -> str:
    """Return the entity of a stranger's questions that are controls for a person."""
    return f"{stranger}/{entity}"


def controls_of(entity: str) -> tuple[str, ...]:
    """Return the entities of the controls for a person."""
    return tuple(control_of(entity, f"control-{number}") for number in range(CONTROLS))


def split(responses: Sequence[Response], entity: str) -> tuple[list[Response], list[Response]]:
    """Return the responses about a person, and those about the controls."""
    control_entities = set(controls_of(entity))
    return [response for response in responses if response.entity == entity], [
        response for response in responses if response.entity in control_entities
    ]


def split_shares(responses: Sequence[Response], entity: str) -> tuple[dict[str, Share], dict[str, Share]]:
    """Return the shares of answers that give the person away, by surface: about the person, and about the controls."""
    person_responses, control_responses = split(responses, entity)
    return shares(person_responses), shares(control_responses)


def is_collapsed(responses: Sequence[Response]) -> bool:
    """Tell whether most answers are degenerate and give nothing away.

    Such answers do not show forgetting. Open questions decide if there are any: a short answer to a question for a name
    is not degenerate.
    """
    open_answers = [response for response in responses if response.kind is Kind.OPEN]
    probe_answers = open_answers or [response for response in responses if response.kind in PROBES]
    degenerate_answers = [
        response
        for response in probe_answers
        if degenerate(response.text) and not leaked_facts(response.text, response.private, response.question)
    ]
    return bool(probe_answers) and len(degenerate_answers) / len(probe_answers) >= COLLAPSED
