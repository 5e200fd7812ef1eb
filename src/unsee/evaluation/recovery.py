"""Measure how much forgotten information a model gives in answer to test questions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from unsee.api import PROBES, VLM, Benchmark, Example, Finding, Kind, Role
from unsee.api.request import Completion, Prompt, Sampling
from unsee.errors import UserError
from unsee.metrics.degeneration import degenerate
from unsee.metrics.matching import contains, leaked

TOKENS: Final = 48
"""Length limit of an answer to a question for one name or fact."""
OPEN_TOKENS: Final = 160
_BATCH: Final = 64


def probed_rows(benchmark: Benchmark, per_question: int = 0) -> list[Example]:
    """Return the test questions: names and facts of the forget set on held-out images.

    Data without held-out images are tested on the forget images, data without such questions by the open ones.

    Args:
        benchmark: Data.
        per_question: Most images per entity, kind and fact; 0 = all.

    Raises:
        UserError: Nothing can be tested, since no question is about a private string.
    """
    rows = [row for row in benchmark.examples("eval") if row.kind in PROBES and row.entity and requested_forms(row)]
    for role in (Role.UNSEEN, Role.FORGET):
        for kinds in ({Kind.NAME, Kind.FACT}, {Kind.OPEN}):
            if chosen := [row for row in rows if row.role == role and row.kind in kinds]:
                return thinned(chosen, per_question)
    raise UserError(
        "There is nothing to attack: the data have no question about a forgotten entity with private strings. "
        "`unsee check` says what is missing."
    )


def requested_forms(row: Example) -> Mapping[str, tuple[str, ...]]:
    """Return the private strings that the question asks for, without those that it contains."""
    wanted = {Kind.NAME: "name", Kind.FACT: row.fact}.get(row.kind)
    facts = {fact: forms for fact, forms in row.private.items() if wanted in (None, fact)}
    return {fact: forms for fact, forms in facts.items() if forms and not leaked(row.question, {fact: forms})}


def ask(loaded: VLM, rows: Sequence[Example], *, sampling: Sampling | None = None, seed: int = 0) -> list[Completion]:
    """Return the model's answers, greedy unless `sampling` is given.

    Args:
        loaded: Model, processor, family and instruction.
        rows: Questions.
        sampling: Temperature and nucleus to draw with.
        seed: Seed of the draws, together with the question's place in the list.
    """
    from unsee.inference.generation import generate

    opens = any(row.kind == Kind.OPEN for row in rows)
    return generate(
        loaded,
        [Prompt.of(row, loaded.instruction) for row in rows],
        max_new_tokens=OPEN_TOKENS if opens else TOKENS,
        batch_size=_BATCH,
        sampling=sampling,
        seed=seed,
    )


def gives(text: str, row: Example) -> bool:
    """Tell whether the answer has the forgotten information that the question asks for."""
    return bool(leaked(text, requested_forms(row), row.question))


def finding(
    variant: str,
    rows: Sequence[Example],
    hits: Sequence[float],
    texts: Sequence[str],
    at: float | None = None,
    further: Mapping[str, float] | None = None,
) -> Finding:
    """Return the finding of these answers.

    Args:
        variant: Name of this form of the attack.
        rows: Questions about forgotten entities.
        hits: How much came back per row, 0 to 1.
        texts: Answers whose degenerate share is reported; they need not belong to the rows.
        at: Number that the variant was run at (step, layer, number of draws), for curves.
        further: Other numbers worth keeping, by name.
    """
    by_entity: dict[str, list[float]] = defaultdict(list)
    for row, hit in zip(rows, hits, strict=True):
        by_entity[row.entity].append(hit)
    return Finding(
        variant=variant,
        recovered={entity: sum(values) / len(values) for entity, values in sorted(by_entity.items())},
        degenerate=sum(map(_garbled, texts)) / max(1, len(texts)),
        questions=len(rows),
        at=at,
        further=further or {},
    )


def recovery(loaded: VLM, rows: Sequence[Example], variant: str, at: float | None = None) -> Finding:
    """Ask the questions and return what came back.

    Args:
        loaded: Attacked model.
        rows: Questions about forgotten entities, changed as the attack wants them.
        variant: Name of this form of the attack.
        at: Number that the variant was run at, for curves.
    """
    texts = [answer.text for answer in ask(loaded, rows)]
    return finding(variant, rows, [gives(text, row) for text, row in zip(texts, rows, strict=True)], texts, at)


def require_disjoint(fitted: Sequence[Example], rows: Sequence[Example]) -> None:
    """Raise if an attack is fitted on what it is tested on: an image with its question, or a string that is asked for.

    Raises:
        UserError: Names the overlapping rows.
    """
    wanted: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        wanted[row.entity] |= {form for forms in requested_forms(row).values() for form in forms}
    images = {row.image.key for row in rows if row.image is not None}
    for row in fitted:
        same = row.image is not None and row.image.key in images
        told = [form for form in wanted.get(row.entity, ()) if contains(row.answer, form)]
        if told or (same and row.entity in wanted):
            why = "its answer holds what is asked for" if told else "its image is one of the test"
            raise UserError(f"The attack would be fitted on what it is tested on: row {row.id!r}, {why}.")


def without(row: Example, fact: str) -> Example:
    """Return the row with one fact no longer private, since an attack is fitted on it."""
    return replace(row, private={key: forms for key, forms in row.private.items() if key != fact})


def _garbled(text: str) -> bool:
    """Tell whether a short answer is degenerate: one word may answer a question for a fact."""
    return not text.strip() or (len(text.split()) > 3 and degenerate(text))


def thinned(rows: Sequence[Example], most: int) -> list[Example]:
    """Return at most so many rows per entity, kind and fact."""
    if not most:
        return list(rows)
    counts: dict[tuple[str, str, str], int] = defaultdict(int)
    kept = []
    for row in rows:
        key = (row.entity, row.kind, row.fact)
        counts[key] += 1
        if counts[key] <= most:
            kept.append(row)
    return kept
