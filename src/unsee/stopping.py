"""The stop rule: what the model still gives away about the forget targets it has been trained on (pubg.md 8)."""

from __future__ import annotations

from collections.abc import Sequence

from unsee.api import PROBES, Example, Session
from unsee.batching import Target
from unsee.generation import Request, generate
from unsee.metrics.matching import leaked


def seen_probes(targets: Sequence[Target]) -> list[Example]:
    """Return the distinct (image, question) pairs among the targets that ask for something private."""
    asked: dict[tuple[str, str], Example] = {}
    for target in targets:
        example = target.example
        if example.kind in PROBES and example.private:
            asked.setdefault((example.image.key if example.image else "", example.question), example)
    return list(asked.values())


def unlearning_success(session: Session, probes: Sequence[Example]) -> float:
    """Return USR: the share of greedy answers that give away no private term (pubg.md 7.1)."""
    requests = [Request(example.question, example.image, session.instruction) for example in probes]
    limit = session.training.max_new_tokens
    answers = generate(session.model, session.processor, session.family, requests, max_new_tokens=limit)
    kept = [not leaked(said.text, asked.private, asked.question) for said, asked in zip(answers, probes, strict=True)]
    return sum(kept) / len(kept)
