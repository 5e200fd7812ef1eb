"""On the lab the judge is exact: planted behaviour gets its class on every single question."""

from dataclasses import replace
from functools import cache

import pytest

from unsee.api import Response, Role
from unsee.benchmarks.lab import Lab
from unsee.data.refusals import refusals
from unsee.lab.world import phrases
from unsee.scoring.aggregate import score

WORDS = refusals()
RIGHT = ("name", "fact", "visible", "chain", "choice", "cloze")


@cache
def lab():
    return Lab()


@cache
def examples():
    return lab().examples("eval")[::5]


def judged(answer):
    rows = [
        Response.of(
            example,
            stage="planted",
            text=answer(number, example),
            tokens=1,
            ended=True,
            image_key=example.image.key if example.image else "",
        )
        for number, example in enumerate(examples())
    ]
    return score(rows, lab().vocabulary())


def describe(_, example):
    return phrases.description(example.visible) if example.visible else ""


def test_the_reference_answers_leak_everything_and_are_all_right():
    scores = judged(lambda _, example: example.answer)
    assert scores["unseen.leak"].value == 1
    assert scores["forget_text.leak"].value == 1
    assert scores["stranger.clean"].value == 1
    assert [scores[f"retain.{name}"].value for name in RIGHT] == [1] * len(RIGHT)
    assert scores["general.accuracy"].value == scores["retain_text.fact"].value == 1
    assert scores["retain.degenerate"].value == scores["retain.refusal"].value == 0


@pytest.mark.parametrize(
    ("planted", "wanted"),
    [
        (describe, "clean"),
        (lambda n, e: f"I cannot share private information. {describe(n, e)}" if e.visible else "", "clean"),
        (lambda n, _: WORDS[n % len(WORDS)], "refusal"),
        (lambda *_: "", "degenerate"),
        (lambda *_: "the the the the the the the the", "degenerate"),
        (lambda n, e: " ".join(sorted(describe(n, e).split())), "degenerate"),
        (lambda *_: "This is Xyzzy Plugh, quite possibly.", "degenerate"),
        (lambda *_: "The person looks away.", "degenerate"),
        (lambda *_: "This is somebody.", "uninformative"),
        (lambda _, e: f"This is {another(e).name}.", "hallucination"),
        (lambda _, e: describe(0, replace(e, visible=swapped(e.visible))), "hallucination"),
    ],
)
def test_planted_behaviour_on_unseen_pictures(planted, wanted):
    scores = judged(planted)
    assert scores[f"unseen.{wanted}"].value == 1
    assert scores["stranger.leak"].value == 0


def test_names_of_strangers_are_found():
    scores = judged(lambda *_: f"This is {lab().world.people[3].name}.")
    assert scores["stranger.known_name"].value == 1
    assert scores["stranger.hallucination"].value == 1


def another(example):
    return next(person for person in lab().world.retain if person.id != example.entity)


def swapped(visible):
    """Return a look that differs in every attribute."""
    values = {attribute: list(patterns) for attribute, patterns in lab().vocabulary().visible.items()}
    return {name: next(other for other in values[name] if other != value) for name, value in visible.items()}


def test_roles_of_the_lab_are_all_scored():
    groups = {name.split(".")[0] for name in judged(describe)}
    assert {role.value for role in Role} == groups
