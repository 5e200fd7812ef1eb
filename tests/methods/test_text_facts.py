"""Text questions behind a saliency mask: the data's own, those about images by name, or, as released, what the data judge."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fixtures.mllmu import build, name_of
from helpers.mmunlearner import session_at
from unsee.api import Example, Kind, Role
from unsee.data.open import open_benchmark
from unsee.errors import UserError
from unsee.methods.mmunlearner.method import MMUnlearner
from unsee.methods.mmunlearner.saliency import preserve_targets
from unsee.methods.mmunlearner.text_questions import TEXTS, eval_text_questions, named_questions, with_texts
from unsee.testing.tiny import QUESTION, person


@pytest.fixture(scope="module")
def mllmu(tmp_path_factory):
    place = tmp_path_factory.mktemp("mllmu")
    build(place)
    return open_benchmark(place, {"name": "mllmu", "ratio": 10})


def test_the_name_stands_where_this_person_was():
    shown = [person("ada", Role.FORGET), person("dan", Role.RETAIN), person("bo", Role.FORGET, kind=Kind.NAME)]
    odd = replace(shown[1], id="odd", question="Where does The Individual work?", answer="This person works in \\1.")
    nobody = replace(shown[0], id="nobody", private={})
    found = named_questions([*shown, odd, nobody])
    assert [(row.role, row.question, row.image) for row in found] == [
        (Role.FORGET_TEXT, QUESTION.replace("this person", "Ada Lovell"), None),
        (Role.RETAIN_TEXT, QUESTION.replace("this person", "Dan Reed"), None),
        (Role.RETAIN_TEXT, "Where does Dan Reed work?", None),
    ]
    assert found[0].answer == shown[0].answer
    assert found[2].answer == "Dan Reed works in \\1."


def test_the_datas_own_text_questions_come_first(tmp_path):
    session = session_at(tmp_path / "run")
    assert with_texts(session, "facts") == (session, "training data")
    del session.examples[Role.RETAIN_TEXT]
    seen, place = with_texts(session, "facts")
    assert place == "training data, named"
    assert {row.entity for row in seen.of(*TEXTS)} == {"ada", "bo", "cleo", "dan"}
    assert not session.of(*TEXTS)  # nothing more is trained on


def test_mllmu_bench_has_text_facts_behind_its_mask(mllmu, tmp_path):
    session = session_at(tmp_path / "run")
    session.examples = {role: [row for row in mllmu.examples("train") if row.role is role] for role in Role}
    method = MMUnlearner()
    assert not any(target.example.image is None for target in preserve_targets(session, method._sweep(0)))
    read = [
        target.example
        for target in preserve_targets(method._text_session(session), method._sweep(0))
        if not target.example.image
    ]
    first = next(row for row in read if row.entity == "101")
    assert name_of("101") in first.question
    assert {row.role for row in read} == set(TEXTS)
    assert session.notes["p_text"] == {"from": "training data, named", "questions": len(read)}


def test_released_are_the_judged_choices_answered_in_words(mllmu, tmp_path):
    found = eval_text_questions(mllmu)
    asked = [row for row in mllmu.examples("eval") if row.role in TEXTS and row.kind is Kind.CHOICE]
    assert len(found) == len(asked) > 0
    assert {row.question for row in found} == {"Who is it?"}
    assert all(row.answer == name_of(row.entity) and not row.options for row in found)
    session = session_at(tmp_path / "run")
    session.benchmark = mllmu
    seen = MMUnlearner(p_text="released")._text_session(session)
    assert seen.of(*TEXTS) == [row for role in TEXTS for row in found if row.role is role]
    assert session.notes["p_text"] == {"from": "judged questions", "questions": len(found)}


def test_data_without_choices_give_all_they_judge_in_text(mllmu):
    rows = [row for row in mllmu.examples("eval") if row.kind is not Kind.CHOICE]
    part = type("Part", (), {"examples": lambda _, split: rows if split == "eval" else []})()
    assert eval_text_questions(part) == [row for row in rows if row.role in TEXTS]


@pytest.mark.parametrize("answer", ["", "AB", "C"])
def test_a_choice_without_one_letter_of_its_options_is_not_taken(answer):
    row = Example(
        id="c", role=Role.FORGET_TEXT, kind=Kind.CHOICE, question="Who?", answer=answer, options=("Ada", "Bo"), entity="ada"
    )  # fmt: skip
    right = replace(row, id="d", answer="B")
    data = type("Data", (), {"examples": lambda _, split: [row, right]})()
    assert [(choice.id, choice.answer) for choice in eval_text_questions(data)] == [("d", "Bo")]


@pytest.mark.parametrize("mode", ["fixed", "as_released"])
def test_both_modes_look_at_the_text_part_that_is_asked_for(mode, mllmu, tmp_path):
    kept = {}
    for source in ("facts", "released"):
        session = session_at(tmp_path / source, clip=1.0)
        session.benchmark = mllmu
        MMUnlearner(mode=mode, p_text=source, released_precision="fp32").unlearn(session)
        assert session.notes["p_text"]["from"] == ("judged questions" if source == "released" else "training data")
        kept[source] = session.notes["mask"]["kept"]
    assert kept["facts"] != kept["released"]


def test_released_needs_what_is_judged(tmp_path):
    with pytest.raises(UserError, match="p_text=released takes the questions that the data judge"):
        MMUnlearner(p_text="released").unlearn(session_at(tmp_path / "run"))


def test_a_run_knows_its_data(mllmu, tmp_path, monkeypatch):
    from unsee import forget
    from unsee.api import Session
    from unsee.testing.tiny import save_tiny

    seen: list[Session] = []
    monkeypatch.setattr(MMUnlearner, "unlearn", lambda self, session: seen.append(session))
    training = {"tune": "full", "parts": ["language"], "stop": "never"}
    benchmark = {"name": "mllmu", "ratio": 10}
    place = mllmu.dataset.place
    forget(save_tiny(tmp_path / "m"), place, "mmunlearner", tmp_path / "out", benchmark=benchmark, training=training)
    assert eval_text_questions(seen[0].benchmark)
