"""Forgotten information in a model's answers to test questions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from unsee.api import PROBES, VLM, Benchmark, Example, Finding, Kind, Response, Role
from unsee.api.request import Completion, Prompt, Sampling
from unsee.errors import NotFiniteError, UserError
from unsee.metrics._words import tokens
from unsee.metrics.degeneration import degenerate
from unsee.metrics.matching import leaked_facts, mentions, unreadable

TOKENS: Final = 48
"""Length limit of an answer to a question for one name or fact."""
OPEN_TOKENS: Final = 160
LONGER: Final = 4
"""Factor of the length limit for answers that were truncated before anything came back."""
NOT_FINITE: Final = "not finite"
"""Further figure of a variant in which the model's output is not a number."""
_BATCH: Final = 64
_SHORT: Final = 3
"""Most words of an answer that may be too short to be judged as language ..."""
_LONGEST: Final = 30
"""... and the most letters of each [inferred]."""
_ASKED: Final = tuple((role, open_) for role in (Role.UNSEEN, Role.FORGET, Role.FORGET_TEXT) for open_ in (False, True))
"""Test questions of an entity, best first: role, and whether the questions are open ones."""


def probed_rows(benchmark: Benchmark, per_question: int = 0) -> list[Example]:
    """Return the test questions: names and facts of the forget set on held-out images.

    Entities without held-out images are tested on the forget images, those without images in text, and those without such
    questions by the open ones.

    Args:
        benchmark: Data.
        per_question: Most images per entity and question; 0 = all.

    Raises:
        UserError: Nothing can be tested, since no question is about a private string.
    """
    rows = [row for row in benchmark.examples("eval") if row.kind in PROBES and row.entity and requested_forms(row)]
    best_preference: dict[str, int] = {}
    for row in rows:
        if (preference := _preference(row)) < len(_ASKED):
            best_preference[row.entity] = min(preference, best_preference.get(row.entity, preference))
    if not best_preference:
        raise UserError(
            "There is nothing to attack: the data have no question about a forgotten entity with private strings. "
            "`unsee check` says what is missing."
        )
    return limit_rows([row for row in rows if _preference(row) == best_preference.get(row.entity)], per_question)


def pictured_rows(benchmark: Benchmark, per_question: int = 0) -> list[Example]:
    """Return the test questions that have an image, of those that `probed_rows` returns.

    Raises:
        UserError: No test question has one, or nothing can be tested.
    """
    rows = [row for row in probed_rows(benchmark, per_question) if row.image is not None]
    if not rows:
        raise UserError("The test questions have no images that could be changed.")
    return rows


def _preference(row: Example) -> int:
    """Return the index of role and kind in `_ASKED`, best first."""
    condition = (row.role, row.kind == Kind.OPEN)
    return _ASKED.index(condition) if condition in _ASKED else len(_ASKED)


def requested_forms(row: Example) -> Mapping[str, tuple[str, ...]]:
    """Return the private strings that the question asks for, without those that it contains.

    Private strings given as a plain list become a name and `other` strings, and any question for a fact asks for the latter.
    """
    fact_key = row.fact if row.fact in row.private else "other"
    requested_fact = {Kind.NAME: "name", Kind.FACT: fact_key}.get(row.kind)
    forms_by_fact = {fact: forms for fact, forms in row.private.items() if requested_fact in (None, fact)}
    return {
        fact: forms for fact, forms in forms_by_fact.items() if forms and not leaked_facts(row.question, {fact: forms})
    }


def ask(loaded: VLM, rows: Sequence[Example], *, sampling: Sampling | None = None, seed: int = 0) -> list[Completion]:
    """Return the model's answers, greedy unless `sampling` is given.

    Args:
        loaded: Model, processor, family and instruction.
        rows: Questions.
        sampling: Temperature and nucleus to draw with.
        seed: Seed of the draws, together with the question's place in the list.
    """
    from unsee.inference.generation import generate

    prompts = [Prompt.of(row, loaded.instruction) for row in rows]
    limit = OPEN_TOKENS if any(row.kind == Kind.OPEN for row in rows) else TOKENS

    def answers(indices: Sequence[int], limit: int) -> list[Completion]:
        return generate(
            loaded,
            [prompts[index] for index in indices],
            max_new_tokens=limit,
            batch_size=_BATCH,
            sampling=sampling,
            seed=seed,
            places=indices,
        )

    completions = answers(range(len(rows)), limit)
    cut_indices = [
        index for index, row in enumerate(rows) if is_cut(completions[index], gives(completions[index].text, row))
    ]
    for index, completion in zip(cut_indices, answers(cut_indices, LONGER * limit) if cut_indices else (), strict=True):
        completions[index] = completion
    return completions


def is_cut(answer: Completion | Response, hit: bool | None) -> bool:
    """Tell whether an answer was cut before anything came back and does not loop."""
    return not answer.ended and not hit and not _is_garbled(answer.text)


def answerable(rows: Sequence[Example]) -> list[Example]:
    """Return the rows whose question, as worded by an attack, does not contain its answer."""
    return [row for row in rows if requested_forms(row)]


def gives(text: str, row: Example) -> bool | None:
    """Tell whether the answer has the forgotten information that the question asks for.

    None if undecidable: the question contains it, or the answer is in another script than the private strings.
    """
    return tells(text, requested_forms(row), row.question)


def tells(text: str, forms: Mapping[str, Sequence[str]], question: str = "") -> bool | None:
    """Tell whether the answer has one of these private strings, by fact, that the question does not have.

    None if undecidable: there are none, or the answer is in another script.
    """
    if leaked_facts(text, forms, question):
        return True
    return None if not forms or unreadable(text, forms) else False


def finding(
    variant: str,
    rows: Sequence[Example],
    hits: Sequence[float | None],
    texts: Sequence[str],
    at: float | None = None,
    further: Mapping[str, float] | None = None,
) -> Finding:
    """Return the finding of these answers, about nobody if none can be judged.

    Args:
        variant: Name of this form of the attack.
        rows: Questions about forgotten entities.
        hits: Recovered share per row, 0 to 1, or None if undecidable; such rows are left out.
        texts: Answers whose degenerate share is reported; they need not belong to the rows.
        at: Number that the variant was run at (step, layer, number of draws), for curves.
        further: Other numbers to report, by name.
    """
    by_entity: dict[str, list[float]] = defaultdict(list)
    for row, hit in zip(rows, hits, strict=True):
        if hit is not None:
            by_entity[row.entity].append(hit)
    return Finding(
        variant=variant,
        recovered={entity: sum(values) / len(values) for entity, values in sorted(by_entity.items())},
        degenerate=sum(map(_is_garbled, texts)) / max(1, len(texts)),
        questions=sum(map(len, by_entity.values())),
        at=at,
        asked={entity: len(values) for entity, values in sorted(by_entity.items())},
        further=further or {},
    )


def recovery(loaded: VLM, rows: Sequence[Example], variant: str, at: float | None = None) -> Finding:
    """Ask the questions and return what came back, about nobody if an output of the model is not a number.

    Args:
        loaded: Attacked model.
        rows: Questions about forgotten entities, as changed by the attack.
        variant: Name of this form of the attack.
        at: Number that the variant was run at, for curves.
    """
    try:
        completions = ask(loaded, rows)
    except NotFiniteError:
        return finding(variant, rows, [None] * len(rows), [], at, {NOT_FINITE: 1.0})
    hits = [gives(completion.text, row) for completion, row in zip(completions, rows, strict=True)]
    return finding(
        variant, rows, hits, [completion.text for completion in completions], at, unsure_shares(completions, hits)
    )


def unsure_shares(completions: Sequence[Completion], hits: Sequence[bool | None]) -> dict[str, float]:
    """Return the shares of answers that show no silence, without those that are 0.

    `unjudged`: answers that cannot be judged. `cut`: of the others, those cut before anything came back. One that leaks or
    loops before the limit would do so without it.
    """
    judged_pairs = [(completion, hit) for completion, hit in zip(completions, hits, strict=True) if hit is not None]
    shares = {
        "unjudged": (len(hits) - len(judged_pairs)) / max(1, len(hits)),
        "cut": sum(is_cut(completion, hit) for completion, hit in judged_pairs) / max(1, len(judged_pairs)),
    }
    return {name: share for name, share in shares.items() if share}


def require_disjoint(fitted: Sequence[Example], rows: Sequence[Example]) -> None:
    """Raise if an attack is fitted on test data: an image, or a requested string.

    Raises:
        UserError: Names the first overlapping row.
    """
    for row, overlap in _overlaps(fitted, rows):
        if overlap:
            raise UserError(f"The attack would be fitted on what it is tested on: row {row.id!r}, {overlap}.")


def disjoint(fitted: Sequence[Example], rows: Sequence[Example]) -> list[Example]:
    """Return the rows to fit an attack on that hold no test data."""
    return [row for row, overlap in _overlaps(fitted, rows) if not overlap]


def _overlaps(fitted: Sequence[Example], rows: Sequence[Example]) -> Iterator[tuple[Example, str]]:
    """Yield each row to fit on, and how it overlaps with the test rows, if it does."""
    forms_by_entity: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        forms_by_entity[row.entity] |= {form for forms in requested_forms(row).values() for form in forms}
    test_images = {row.image.key for row in rows if row.image is not None}
    for row in fitted:
        answer_overlaps = any(mentions(row.answer, form) for form in forms_by_entity.get(row.entity, ()))
        image_overlaps = row.entity in forms_by_entity and row.image is not None and row.image.key in test_images
        yield (
            row,
            "its answer holds what is asked for"
            if answer_overlaps
            else "its image is one of the test"
            if image_overlaps
            else "",
        )


def without(row: Example, fact: str) -> Example:
    """Return the row with one fact no longer private, since an attack is fitted on it."""
    return replace(row, private={key: forms for key, forms in row.private.items() if key != fact})


def _is_garbled(text: str) -> bool:
    """Tell whether an answer is degenerate. One to three words may answer a question."""
    words = tokens(text)
    is_short = 0 < len(words) <= _SHORT and max(map(len, words)) <= _LONGEST
    return not is_short and degenerate(text)


def question_key(row: Example) -> tuple[str, str, str]:
    """Return what identifies a question about an entity in all its wordings: kind and fact.

    Where the data name no fact, questions in other words ask for other things, except those for a name.
    """
    return row.entity, row.kind, row.fact or ("" if row.kind == Kind.NAME else row.question)


def limit_rows(rows: Sequence[Example], limit: int) -> list[Example]:
    """Return at most so many rows per entity and question."""
    if not limit:
        return list(rows)
    counts: dict[tuple[str, str, str], int] = defaultdict(int)
    thinned_rows = []
    for row in rows:
        key = question_key(row)
        counts[key] += 1
        if counts[key] <= limit:
            thinned_rows.append(row)
    return thinned_rows
