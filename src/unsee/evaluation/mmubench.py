"""MMUBench fluency and C-Dis, on the original model's responses (arXiv 2405.12523).

Both need the probabilities of two models, opened one after the other; `unsee eval` gives the measures that need text alone.
"""

from __future__ import annotations

import math
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
from unsee.evaluation.evaluate import as_benchmark
from unsee.inference.generation import generate
from unsee.inference.likelihood import likelihoods
from unsee.inference.token_offsets import tokens_within
from unsee.metrics.mmubench import c_dis, fluency
from unsee.metrics.scripts import whole_matches
from unsee.models.checkpoint import load
from unsee.models.steering.hooks import steerings_of
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
        start: Model before unlearning; empty = the one in its run.yaml.
        data: Data with the concepts; empty = those in its run.yaml.
        limit: Number of questions, the first ones; None = all.
        max_new_tokens: Length limit of the original model's answers.
        batch_size: Questions asked at once.

    Raises:
        UserError: The folder is no run, the data name no concept, or the model is steered.
    """
    run_config = _run(Path(run))
    benchmark = as_benchmark(data) if data else open_benchmark(run_config.data, run_config.benchmark)
    examples = [example for example in benchmark.examples("eval") if _about_concept(example)][:limit]
    if not examples:
        raise UserError(
            "Nothing to measure: the data have no questions for a name with unseen images of forgotten concepts."
        )
    original = _load(start or run_config.model)
    responses = _responses(original, examples, max_new_tokens, batch_size)
    non_empty = [(example, text) for example, text in responses if text.strip()]
    if not non_empty:
        raise UserError(
            f"The original model {start or run_config.model} gave an empty response to all {len(responses)} questions."
        )
    original_logprobs, masks = (
        _likelihoods(original, non_empty, batch_size),
        [_name_mask(original, *pair) for pair in non_empty],
    )
    vocabulary_size = len(original.processor.tokenizer)
    del original
    unlearned_logprobs = _likelihoods(_load(run), non_empty, batch_size)
    report = _report(original_logprobs, unlearned_logprobs, masks, vocabulary_size, len(responses) - len(non_empty))
    atomic_write_json(Path(run) / "concepts.json", asdict(report))
    return report


def _run(folder: Path) -> config.Run:
    if not (folder / RECORD).is_file():
        raise UserError(f"{folder} is no run folder: expected {RECORD}, which `unsee forget` writes.")
    return config.read(folder / RECORD)


def _about_concept(example: Example) -> bool:
    """Tell whether a held-out image question may elicit the name."""
    return (
        example.role is Role.UNSEEN
        and example.image is not None
        and example.kind in (Kind.NAME, Kind.OPEN)
        and "name" in example.private
    )


def _load(model: Path | str) -> VLM:
    loaded = load(model)
    if steerings_of(loaded.model):
        raise UserError(f"{model} is a steered model: its probabilities in one pass differ from those in generation.")
    loaded.model.to(processes.device())
    return loaded


def _responses(loaded: VLM, examples: Sequence[Example], length: int, batch_size: int) -> list[tuple[Example, str]]:
    """Return the questions with greedy responses."""
    completions = generate(
        loaded,
        [Prompt.of(example, loaded.instruction) for example in examples],
        max_new_tokens=length,
        batch_size=batch_size,
        progress="Answers of the original model",
    )
    return [(example, completion.text) for example, completion in zip(examples, completions, strict=True)]


def _likelihoods(loaded: VLM, responses: Sequence[tuple[Example, str]], batch_size: int) -> list[tuple[float, ...]]:
    """Return token log-probabilities of the responses, without EOS."""
    requests = [(Prompt.of(example, loaded.instruction), text) for example, text in responses]
    scored_responses = likelihoods(loaded, requests, batch_size=batch_size)
    return [likelihood.tokens[:-1] for likelihood in scored_responses]


def _name_mask(loaded: VLM, example: Example, text: str) -> list[bool]:
    """Return a mask of the response's tokens that belong to a name of the concept."""
    spans = [match.span() for match in whole_matches(text, example.private["name"], ignore_case=True)]
    return tokens_within(loaded.processor, loaded.family, text, spans)


def _report(
    original_logprobs: Sequence[Sequence[float]],
    unlearned_logprobs: Sequence[Sequence[float]],
    masks: Sequence[Sequence[bool]],
    vocabulary_size: int,
    empty: int,
) -> ConceptReport:
    mask = [is_name for answer_mask in masks for is_name in answer_mask]
    before, after = (
        [logprob for answer in logprobs for logprob in answer] for logprobs in (original_logprobs, unlearned_logprobs)
    )
    names_before, names_after = (
        [math.exp(logprob) for logprob, is_name in zip(logprobs, mask, strict=True) if is_name]
        for logprobs in (before, after)
    )
    return ConceptReport(
        fluency=fluency(after, mask),
        fluency_uniform=fluency(after, mask, "uniform", vocabulary=vocabulary_size),
        fluency_start=fluency(before, mask),
        c_dis=c_dis(names_before, names_after) if names_before else None,
        answers=len(original_logprobs),
        named=sum(any(answer_mask) for answer_mask in masks),
        empty=empty,
    )
