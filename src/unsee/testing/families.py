"""The contract of families, run on a tiny checkpoint of the real class."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from unsee.api import VLM, Family, Role, Session, Training
from unsee.api.fast_paths import Name, engine_named
from unsee.api.request import Prompt, Target
from unsee.inference.answer_logits import answer_logprob
from unsee.inference.batching import collate
from unsee.inference.generation import generate
from unsee.testing.checks import require
from unsee.testing.tiny import Drawn, tiny_examples
from unsee.training.targets import forget_targets, retain_targets

MODES: Final[tuple[Name, ...]] = ("fast", "plain")
ATOL, RTOL = 2e-4, 1e-4
QUESTIONS: Final = (
    Prompt("Who is this?", Drawn("red")),
    Prompt("What does this person do?", Drawn("red")),
    Prompt("Who is this?", Drawn("blue")),
    Prompt("What does Cleo Marsh do?"),
    Prompt("Who is this person then?", Drawn("green"), "Do not reveal private information."),
)


def family_contract(family: Family, folder: Path, out: Path) -> None:
    """Check a family on a tiny checkpoint.

    Prompts hold the question and the instruction, inputs are padded on the left, other pixels give another loss, a row has
    the same loss and the same greedy answer alone and among others (with the fast paths and without), and the parts of
    the model are disjoint.

    Args:
        family: An instance.
        folder: A checkpoint with model and processor, small and random, with a vocabulary for English letters.
        out: Empty folder.

    Raises:
        AssertionError: One of these does not hold.
    """
    model, processor = family.load(folder)
    require(not model.training, "load must return the model in eval mode")
    session = Session(
        vlm=VLM(model=model, processor=processor, family=family),
        examples=tiny_examples(),
        training=Training(lr=1e-2, epochs=1, max_new_tokens=6, stop="never"),
        seed=0,
        out=out,
        resume=False,
    )
    prompts(family, processor)
    left_padding(family, processor)
    pixels_matter(session)
    same_loss_in_batches(session)
    same_answers_in_batches(session, QUESTIONS)
    disjoint_parts(session)


def prompts(family: Family, processor: Any) -> None:
    """Check that the prompt holds question and instruction, and marks an image."""
    with_image = family.prompt(processor, "Who is this?", has_image=True)
    without_image = family.prompt(processor, "Who is this?", has_image=False)
    instructed = family.prompt(processor, "Who is this?", has_image=True, instruction="Hush.")
    require("Who is this?" in with_image and "Who is this?" in without_image, "the prompt lacks the question")
    require(with_image != without_image, "a prompt with an image looks like one without")
    require(
        0 <= instructed.find("Hush.") < instructed.find("Who is this?"), "the instruction must precede the question"
    )


def left_padding(family: Family, processor: Any) -> None:
    """Check that rows of unequal length are padded on the left."""
    texts = [family.prompt(processor, request.question, has_image=True) for request in QUESTIONS[:2]]
    encoded = family.encode(processor, texts, [Drawn("red").load(), Drawn("blue").load()])
    require(bool((encoded["attention_mask"][:, -1] == 1).all()), "inputs must be padded on the left")


def pixels_matter(session: Session) -> None:
    """Check that another image changes the loss, with the fast paths and without."""
    for example in session.of(Role.FORGET)[:2]:
        image: Any = example.image
        other_example = replace(example, image=replace(image, color="green"))
        for mode in MODES:
            logprob, other_logprob = (
                _logprobs(session, [Target(example=row)], mode) for row in (example, other_example)
            )
            require(abs(float(logprob - other_logprob)) > 1e-3, f"another image gives the same loss ({mode} engine)")


def same_loss_in_batches(session: Session) -> None:
    """Check that a row has the same loss alone and in a batch of rows with and without image."""
    targets = [*forget_targets(session), *retain_targets(session)]
    for mode in MODES:
        batch_logprobs = _logprobs(session, targets, mode)
        single_logprobs = torch.cat([_logprobs(session, [target], mode) for target in targets])
        gap = float((batch_logprobs - single_logprobs).abs().max())
        require(
            torch.allclose(batch_logprobs, single_logprobs, atol=ATOL, rtol=RTOL),
            f"log-likelihoods differ by {gap} in a batch ({mode} engine)",
        )


def same_answers_in_batches(session: Session, questions: tuple[Prompt, ...]) -> None:
    """Check that greedy answers do not depend on the batch or on the fast paths."""
    answers = [_generate_ids(session, questions, mode) for mode in MODES]
    single_answers = [_generate_ids(session, (request,), "plain")[0] for request in questions]
    require(
        answers[0] == answers[1] == single_answers, "greedy answers differ alone, in a batch, or without the fast paths"
    )
    require(len(set(single_answers)) > 1, "all questions have the same answer, so nothing was compared")


def disjoint_parts(session: Session) -> None:
    """Check that no weight belongs to two parts, and that every part has weights."""
    patterns = session.family.parts(session.model)
    require(set(patterns) == {"vision", "projector", "language"}, f"expected three parts, got {sorted(patterns)}")
    modules = [name.rpartition(".")[0] for name, _ in session.model.named_parameters()]
    owners = {name: [part for part, text in patterns.items() if re.fullmatch(text, name)] for name in modules}
    require(all(len(parts) < 2 for parts in owners.values()), "a module belongs to several parts")
    owned = {part for parts in owners.values() for part in parts}
    require(owned == set(patterns), f"no module belongs to {sorted(set(patterns) - owned)}")


def _logprobs(session: Session, targets: list[Target], mode: Name) -> Tensor:
    with torch.no_grad():
        return answer_logprob(session.model, collate(_as(session, mode), targets)).sum_b


def _generate_ids(session: Session, questions: tuple[Prompt, ...], mode: Name) -> list[tuple[int, ...]]:
    responses = generate(_as(session, mode), questions, max_new_tokens=5)
    return [response.token_ids for response in responses]


def _as(session: Session, mode: Name) -> VLM:
    """Return the model with this engine."""
    return replace(session.vlm, engine=engine_named(mode))
