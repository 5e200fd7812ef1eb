"""MMUBench fluency and C-Dis, on the original model's responses (arXiv 2405.12523).

Both ask for probabilities, so they need both models, one after the other: `unsee eval` gives the measures that text alone gives.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from unsee import config
from unsee.api import VLM, Benchmark, Example, Kind, Role
from unsee.api.request import Prompt
from unsee.config import RECORD
from unsee.data.open import open_benchmark
from unsee.distributed import processes
from unsee.errors import UserError
from unsee.metrics.mmubench import c_dis, fluency
from unsee.metrics.scripts import whole
from unsee.models.checkpoint import load
from unsee.utils.files import atomic_write_json


@dataclass(frozen=True, kw_only=True)
class ConceptReport:
    """MMUBench fluency and C-Dis on the original model's greedy responses."""

    fluency: float | None
    """Perplexity of these responses under the unlearned model, name tokens excluded; lower is better."""
    fluency_uniform: float | None
    """The same with name tokens at uniform probability."""
    fluency_start: float | None
    """The same as `fluency` under the original model, as a baseline."""
    c_dis: float | None
    """Mean binary KL at name tokens; higher is better forgotten. None if the original names nothing."""
    answers: int
    """Non-empty responses of the original model."""
    named: int
    """Those with a name."""
    empty: int
    """Empty responses, which are excluded."""


def concepts(
    run: Path | str,
    *,
    start: Path | str = "",
    data: Benchmark | Path | str = "",
    limit: int | None = None,
    max_new_tokens: int = 128,
    batch_size: int = 16,
) -> ConceptReport:
    """Write concepts.json into the run folder and return the report.

    Args:
        run: Folder of an unlearning run.
        start: The model it began with; empty = what its run.yaml says.
        data: The data with the concepts; empty = what its run.yaml says.
        limit: Questions at most, the first ones; none = all.
        max_new_tokens: Length limit of the original model's answers.
        batch_size: Questions asked at once.

    Raises:
        UserError: The folder is no run, the data name no concept, or the model is steered.
    """
    made = _run(Path(run))
    opened = _opened(data, made)
    asked = [row for row in opened.examples("eval") if _about_concept(row)][:limit]
    if not asked:
        raise UserError(
            "Nothing to measure: the data have no questions for a name with unseen images of forgotten concepts."
        )
    before = _load(start or made.model)
    said = _said(before, asked, max_new_tokens, batch_size)
    told = [(row, text) for row, text in said if text.strip()]
    if not told:
        raise UserError(
            f"The original model {start or made.model} gave an empty response to all {len(said)} questions."
        )
    first, masks = _likelihoods(before, told, batch_size), [_masked(before, *one) for one in told]
    words = len(before.processor.tokenizer)
    del before
    last = _likelihoods(_load(run), told, batch_size)
    report = _report(first, last, masks, words, len(said) - len(told))
    atomic_write_json(Path(run) / "concepts.json", asdict(report))
    return report


def _run(folder: Path) -> config.Run:
    if not (folder / RECORD).is_file():
        raise UserError(f"{folder} is no run folder: expected {RECORD}, which `unsee forget` writes.")
    return config.read(folder / RECORD)


def _opened(data: Benchmark | Path | str, made: config.Run) -> Benchmark:
    if isinstance(data, Benchmark):
        return data
    return open_benchmark(data or made.data, "" if data else made.benchmark)


def _about_concept(row: Example) -> bool:
    """Tell whether a held-out image question may elicit the name."""
    return (
        row.role is Role.UNSEEN
        and row.image is not None
        and row.kind in (Kind.NAME, Kind.OPEN)
        and "name" in row.private
    )


def _load(model: Path | str) -> VLM:
    from unsee.models.steering.hooks import attached

    loaded = load(model)
    if attached(loaded.model):
        raise UserError(f"{model} is a steered model: its probabilities in one pass differ from those in generation.")
    loaded.model.to(processes.device())
    return loaded


def _said(loaded: VLM, asked: Sequence[Example], length: int, batch_size: int) -> list[tuple[Example, str]]:
    """Return the questions with greedy responses."""
    from unsee.inference.generation import generate

    answers = generate(
        loaded,
        [Prompt.of(row, loaded.instruction) for row in asked],
        max_new_tokens=length,
        batch_size=batch_size,
        progress="Answers of the original model",
    )
    return [(row, answer.text) for row, answer in zip(asked, answers, strict=True)]


def _likelihoods(loaded: VLM, told: Sequence[tuple[Example, str]], batch_size: int) -> list[tuple[float, ...]]:
    """Return token log-probabilities of the responses, without EOS."""
    from unsee.inference.likelihood import likelihoods

    asked = [(Prompt.of(row, loaded.instruction), text) for row, text in told]
    found = likelihoods(loaded, asked, batch_size=batch_size)
    return [one.tokens[:-1] for one in found]


def _masked(loaded: VLM, row: Example, text: str) -> list[bool]:
    """Return a mask of the response's tokens that belong to a name of the concept."""
    from unsee.inference.encoder import encoder
    from unsee.inference.token_offsets import answer_offsets

    ids = encoder(loaded.processor, loaded.family).answer(text)
    spans = _spans(text, row.private["name"])
    offsets = answer_offsets(loaded.processor, loaded.family, text, ids)
    return [any(start < last and end > first for first, last in spans) for start, end in offsets]


def _spans(text: str, names: Sequence[str]) -> list[tuple[int, int]]:
    """Return the spans of whole-word name forms in the text, case-insensitive."""
    forms = "|".join(re.escape(form) for form in sorted(names, key=len, reverse=True))
    spans = (found.span() for found in re.finditer(forms, text, re.IGNORECASE))
    return [(start, end) for start, end in spans if whole(text, start, end)]


def _report(
    first: Sequence[Sequence[float]],
    last: Sequence[Sequence[float]],
    masks: Sequence[Sequence[bool]],
    words: int,
    empty: int,
) -> ConceptReport:
    mask = [named for answer in masks for named in answer]
    before, after = ([value for answer in told for value in answer] for told in (first, last))
    names = [(math.exp(one), math.exp(other)) for one, other, named in zip(before, after, mask, strict=True) if named]
    return ConceptReport(
        fluency=fluency(after, mask),
        fluency_uniform=fluency(after, mask, "uniform", vocabulary=words),
        fluency_start=fluency(before, mask),
        c_dis=c_dis([one for one, _ in names], [other for _, other in names]) if names else None,
        answers=len(first),
        named=sum(any(answer) for answer in masks),
        empty=empty,
    )
