"""Stop rule: unlearning success rate on seen forget images (PUBG, arXiv 2506.02541)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

import torch

from unsee.api import PROBES, Example, Kind, Session
from unsee.api.request import Prompt, Target
from unsee.distributed import processes
from unsee.distributed.fsdp import gathered_weights
from unsee.errors import NotFiniteError
from unsee.inference.answer_logits import answer_logprob
from unsee.inference.batching import collate
from unsee.inference.generation import generate
from unsee.metrics.matching import leaked_facts, unreadable
from unsee.models.auto import evaluating
from unsee.training.precision import autocast
from unsee.utils.grouping import by_key, merged_forms


def seen_probes(targets: Sequence[Target]) -> list[Example]:
    """Return the distinct (image, question) pairs that ask for private information."""
    return private_questions((target.example for target in targets), PROBES)


def private_questions(examples: Iterable[Example], kinds: Collection[Kind]) -> list[Example]:
    """Return the distinct (image, question) pairs of these kinds that ask for private information."""
    return first_of_each(private_rows(examples, kinds), question_key)


def private_rows(examples: Iterable[Example], kinds: Collection[Kind]) -> list[Example]:
    """Return the rows of these kinds that ask for private information.

    Rows with the same image and question have each other's private strings: an answer about a picture of two people must name
    neither.
    """
    rows = [example for example in examples if example.kind in kinds and example.private]
    groups = by_key((question_key(row), row) for row in rows)
    united = {
        key: merged_forms(forms for row in group for forms in row.private.items())
        for key, group in groups.items()
        if any(row.private != group[0].private for row in group)
    }
    return [replace(row, private=united[key]) if (key := question_key(row)) in united else row for row in rows]


def first_of_each(rows: Iterable[Example], key: Callable[[Example], object]) -> list[Example]:
    """Return the first row of each key."""
    return [group[0] for group in by_key((key(row), row) for row in rows).values()]


def question_key(example: Example) -> tuple[str, str]:
    """Return what a model is asked: the key of the image ("" for none) and the question."""
    return (example.image.key if example.image else "", example.question)


def finite_output(session: Session, targets: Sequence[Target]) -> bool:
    """Tell whether the log-probabilities of these answers are finite. Collective."""
    with torch.no_grad(), evaluating(session.model), autocast(session.model, session.training):
        logprob_b = answer_logprob(session.model, collate(session, targets)).sum_b
    return all(processes.all_gather(bool(torch.isfinite(logprob_b).all())))


def unlearning_success(session: Session, probes: Sequence[Example]) -> float:
    """Return USR, the share of greedy responses that name no private term.

    An answer in which a term would not be found, because of its script, does not count as a success.

    Each process evaluates its share; under ZeRO-3, where no process has weights of its own, all evaluate all probes in lockstep.
    """
    lockstep = processes.sharding() == "zero3"
    local_probes = list(probes) if lockstep else processes.share(probes)
    prompts = [Prompt.of(example, session.instruction) for example in local_probes]
    limit = session.training.max_new_tokens
    answers, fault = [], ""
    try:
        with gathered_weights(session.model), autocast(session.model, session.training):
            answers = generate(session.vlm, prompts, max_new_tokens=limit)
    except NotFiniteError as error:
        fault = local_probes[error.place].id
    if faults := [example_id for example_id in processes.all_gather(fault) if example_id]:
        raise NotFiniteError(f"example {faults[0]!r}")
    successes = [is_leak_free(answer.text, example) for answer, example in zip(answers, local_probes, strict=True)]
    return sum(successes if lockstep else processes.gather(successes)) / len(probes)


def is_leak_free(text: str, example: Example) -> bool:
    """Tell whether a response contains no private term."""
    return not leaked_facts(text, example.private, example.question) and not unreadable(text, example.private)
