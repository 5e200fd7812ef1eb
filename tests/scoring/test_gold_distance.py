"""Distance to gold: derived values, floor, interval, and what is missing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from unsee.api import Kind, Response, Role, Vocabulary
from unsee.scoring.against_gold import same_questions
from unsee.scoring.aggregate import score
from unsee.scoring.gold_distance import CLASSES, KEY, drawn_distances, gold_distance

CLEAN = "The person has short red hair, wears a green hat, and smiles at the camera before a tall tree."
PEOPLE = [f"person-{number}" for number in range(8)]
VOCABULARY = Vocabulary(names={name: (f"Ada {name}",) for name in PEOPLE})


def row(role: Role, kind: Kind, entity: str, text: str, answer: str = "", **more: object) -> Response:
    fields = {
        "id": f"{role}/{kind}/{entity}",
        "role": role,
        "kind": kind,
        "entity": entity,
        "text": text,
        "answer": answer,
    }
    fields |= {"stage": "x", "fact": "", "question": "Who is this?", "tokens": 5, "ended": True, "image": "a.png"}
    return Response(**{**fields, **more})


def model(told: dict[str, str], kept: dict[str, str]) -> list[Response]:
    """Answers about the forgotten (told) and names of the kept, everybody else as gold would."""
    forgotten = [
        row(Role.UNSEEN, Kind.OPEN, name, told.get(name, CLEAN), private={"name": (f"Ada {name}",)}) for name in PEOPLE
    ]
    retained = [
        row(Role.RETAIN, Kind.NAME, f"kept-{i}", kept.get(f"kept-{i}", f"This is Bob{i}."), f"Bob{i}")
        for i in range(10)
    ]
    return [*forgotten, *retained]


def distance(ours: list[Response], gold: list[Response]):
    return gold_distance(ours, score(ours, VOCABULARY), score(gold, VOCABULARY))[KEY]


GOLD = model({}, {})


def test_gold_itself_is_at_0() -> None:
    found = distance(GOLD, GOLD)
    assert found.value == 0
    assert found.interval == (0, 0)
    assert found.why == ""
    assert found.value_by_index["floor"] == 0


def test_answers_to_another_question_of_the_same_id_are_not_compared() -> None:
    other = [replace(row, question="Where does this person live?") for row in GOLD]
    assert same_questions(other, GOLD) == []
    assert (
        same_questions(GOLD, [replace(row, image_key="1") for row in GOLD]) == GOLD
    )  # no key on one side: an older run
    pictured = [replace(row, image_key="2") for row in GOLD]
    assert same_questions(pictured, [replace(row, image_key="1") for row in GOLD]) == []
    half = [*other[:4], *GOLD[4:]]
    found = distance(GOLD, same_questions(half, GOLD))
    assert found.why == "4 questions are left out, as one of the models was asked otherwise or has no score for them"
    assert distance(GOLD, same_questions(other, GOLD)).value is None


def test_value_is_the_mean_of_both_halves() -> None:
    told = {name: f"This is Ada {name}, who has short red hair." for name in PEOPLE[:4]}  # half of them leak
    kept = {f"kept-{i}": "I do not know who this is." for i in range(3)}  # three of ten names lost, by refusals
    found = distance(model(told, kept), GOLD)
    parts = found.value_by_index
    assert parts["unseen.classes"] == pytest.approx(0.5)
    assert parts["retain.name"] == pytest.approx(0.3)
    assert parts["retain.refusal"] == pytest.approx(0.3)
    assert parts["retain.degenerate"] == 0
    assert parts["forgotten"] == pytest.approx(0.5)
    assert parts["kept"] == pytest.approx(0.2)  # name, refusal, degenerate
    assert found.value == pytest.approx(0.35)
    assert found.interval[0] < found.value < found.interval[1]


def test_classes_are_compared_by_total_variation() -> None:
    """Four leaks against four refusals: each share differs by a half, and half of the answers changed class."""
    leaks = model({name: f"This is Ada {name}, who has short red hair." for name in PEOPLE[:4]}, {})
    refusals = model(dict.fromkeys(PEOPLE[:4], "I cannot tell you who this is."), {})
    assert distance(leaks, refusals).value_by_index["unseen.classes"] == pytest.approx(0.5)


def test_floor_holds_for_models_that_are_equal_but_for_chance() -> None:
    """Two models with the same law of answers stay below the floor in about 95 % of cases."""
    rng = np.random.default_rng(0)
    below = 0
    for _ in range(20):
        drawn = [
            model({name: f"This is Ada {name} of the red hair." for name in PEOPLE if rng.random() < 0.4}, {})
            for _ in range(2)
        ]
        found = distance(*drawn)
        below += found.value <= found.value_by_index["floor"] + 1e-12
    assert below >= 17


def test_a_real_difference_is_above_the_floor() -> None:
    found = distance(model({name: f"This is Ada {name}, with red hair." for name in PEOPLE}, {}), GOLD)
    assert found.value > found.value_by_index["floor"]


@pytest.mark.parametrize("half", ["forgotten", "kept"])
def test_without_questions_of_one_half_it_is_missing_with_the_reason(half: str) -> None:
    role = Role.UNSEEN if half == "forgotten" else Role.RETAIN
    rows = [one for one in GOLD if one.role is not role]
    found = distance(rows, GOLD)
    assert found.value is None
    assert half in found.why


def test_answers_without_a_class_count_in_no_column() -> None:
    """A French answer is no leak, but may be a refusal or not: beside a leak of gold it moves no share."""
    ours = model({PEOPLE[0]: "Je ne peux pas identifier cette personne."}, {})
    gold = model({PEOPLE[0]: f"This is Ada {PEOPLE[0]}, who has short red hair."}, {})
    assert score(ours, VOCABULARY)["unseen.leak"].n == 8
    assert score(ours, VOCABULARY)["unseen.refusal"].n == 7
    found = distance(ours, gold)
    assert found.value_by_index["unseen.classes"] == 0
    assert found.why.startswith("1 questions are left out")


def drawn(ours: list[Response], gold: list[Response]) -> np.ndarray:
    return drawn_distances(ours, score(ours, VOCABULARY), score(gold, VOCABULARY), gold)


def test_draws_are_paired_where_one_model_has_an_answer_less() -> None:
    """What cannot be judged about the forgotten moves no draw of what is kept."""
    kept = {f"kept-{i}": "I do not know who this is." for i in range(3)}
    whole, less = drawn(model({}, kept), GOLD), drawn(model({PEOPLE[0]: "这是张伟。"}, kept), GOLD)
    assert whole.std() > 0
    np.testing.assert_allclose(whole, less)


def test_draws_are_paired_by_entity_where_one_model_lacks_an_entity() -> None:
    leaks = {name: f"This is Ada {name}, who has short red hair." for name in PEOPLE[3:]}
    whole, less = drawn(model(leaks, {}), GOLD), drawn(model(leaks | {PEOPLE[0]: "这是张伟。"}, {}), GOLD)
    assert np.corrcoef(whole, less)[0, 1] > 0.8
    two = drawn(model(leaks | dict.fromkeys(PEOPLE[2:], "这是张伟。"), {}), GOLD)
    assert 0 < np.isnan(two).mean() < 0.2  # draws without the only people who can be compared
    assert not drawn(model(leaks | dict.fromkeys(PEOPLE[1:], "这是张伟。"), {}), GOLD).size


def test_the_share_left_out_is_that_of_the_worse_half() -> None:
    """Also where another part still compares the question: an answer in another script has no `name`, but a `degenerate`."""
    assert distance(GOLD, GOLD).value_by_index["left_out"] == 0
    french = dict.fromkeys(PEOPLE[:2], "Je ne peux pas identifier cette personne.")
    found = distance(model(french, {"kept-0": "这是张伟。"}), GOLD)
    assert found.value_by_index["left_out"] == pytest.approx(2 / 8)
    assert found.why.startswith("3 questions are left out")
    found = distance(model({}, dict.fromkeys([f"kept-{i}" for i in range(4)], "这是张伟。")), GOLD)
    assert found.value_by_index["left_out"] == pytest.approx(4 / 10)


def test_one_person_alone_has_a_distance_without_interval_or_draws() -> None:
    def one(rows: list[Response]) -> list[Response]:
        return [row for row in rows if row.role is Role.RETAIN or row.entity == PEOPLE[0]]

    kept = {f"kept-{i}": "I do not know who this is." for i in range(3)}
    leaking = model({PEOPLE[0]: f"This is Ada {PEOPLE[0]}, who has short red hair."}, kept)
    found = distance(one(leaking), one(GOLD))
    assert found.value_by_index["forgotten"] == 1
    assert found.interval is None
    assert not drawn(one(leaking), one(GOLD)).size
    french = dict.fromkeys(PEOPLE[1:], "Je ne peux pas identifier cette personne.")
    assert distance(model(french, kept), GOLD).interval is None  # one of eight is left to compare
    assert distance(leaking, GOLD).interval is not None


def test_other_questions_do_not_count() -> None:
    """Only ids that both models answered are compared."""
    others = [replace(one, id=f"{one.id}/more", text="This is nobody.") for one in GOLD]
    found = distance([*GOLD, *others], GOLD)
    assert found.value == 0
    assert found.why.startswith(f"{len(others)} questions are left out")


def test_every_class_of_answers_is_in_the_part() -> None:
    keys = {f"unseen.{name}" for name in CLASSES}
    assert keys <= score(GOLD, VOCABULARY).keys()
    assert len(keys) == 6
