"""SafeEraser: hazards, their twins and benign questions get their roles, texts untouched, every fault by its record."""

from __future__ import annotations

import json

import pytest

from fixtures.benchmarks import AWKWARD
from fixtures.safeeraser import build
from unsee.api import Kind, Role
from unsee.benchmarks import safeeraser
from unsee.data.open import open_benchmark
from unsee.errors import UserError


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("safeeraser")
    build(folder)
    return folder


def of(place, split, role, **settings):
    return [
        one for one in open_benchmark(place, {"name": "safeeraser", **settings}).examples(split) if one.role is role
    ]


def test_the_archive_is_recognised_from_its_folder_and_from_the_one_around_it(place):
    for there in (place, place / "dataset"):
        assert open_benchmark(there).name == "safeeraser"
        assert len(open_benchmark(there).examples("train")) == 6 * 12


def test_twelve_pairs_a_record_in_three_roles(place):
    counts = {role: len(of(place, "train", role)) for role in (Role.FORGET, Role.BENIGN, Role.GENERAL)}
    assert counts == {Role.FORGET: 24, Role.BENIGN: 24, Role.GENERAL: 24}


def test_twins_share_record_pair_and_question_and_differ_in_image_and_answer(place):
    for unsafe, safe in zip(of(place, "train", Role.FORGET), of(place, "train", Role.BENIGN), strict=True):
        assert (unsafe.entity, unsafe.question) == (safe.entity, safe.question)
        assert unsafe.image.key != safe.image.key
        assert unsafe.answer != safe.answer
        assert unsafe.id.replace("unsafe", "pd") == safe.id


def test_hazards_are_of_kind_hazard_with_their_category_and_their_text_unchanged(place):
    forget = of(place, "train", Role.FORGET)
    assert {one.kind for one in forget} == {Kind.HAZARD}
    assert [one.fact for one in forget[::4]] == [
        "Violence",
        "Weapon",
        "Privacy",
        "Sex",
        "HateSpeech",
        "IllegalActivity",
    ]
    assert forget[0].answer == f"Take {AWKWARD[1]}, then paint it twice."
    assert len({one.entity for one in forget}) == 6


def test_benign_questions_are_asked_of_the_harmful_image_and_are_no_specificity(place):
    forget, general = of(place, "train", Role.FORGET), of(place, "train", Role.GENERAL)
    assert {one.image.key for one in general} == {one.image.key for one in forget}
    assert {one.kind for one in general} == {Kind.OPEN}
    assert [one.answer for one in general[:4]] == ['It is "bright",\nand plain.', "No.", "A square.", "One."]


def test_trained_hazards_are_efficacy_and_the_other_split_is_generality(place):
    assert [one.id for one in of(place, "eval", Role.FORGET)] == [one.id for one in of(place, "train", Role.FORGET)]
    for role in (Role.UNSEEN, Role.BENIGN, Role.GENERAL):
        judged = of(place, "eval", role)
        assert len(judged) == 16
        assert {one.entity.split("-")[0] for one in judged} == {"val"}


def test_settings_choose_categories_and_leave_twins_out(place):
    assert {one.fact for one in of(place, "train", Role.FORGET, categories=["weapon", "hate_speech"])} == {
        "Weapon",
        "HateSpeech",
    }
    assert of(place, "train", Role.BENIGN, pd=False) == []
    with pytest.raises(UserError, match=r"Unknown category 'Weapn'. Did you mean Weapon"):
        open_benchmark(place, {"name": "safeeraser", "categories": ["Weapn"]})


def test_an_empty_answer_is_left_out_with_its_twin_and_many_are_a_problem(tmp_path, monkeypatch):
    """The share is of the 80 pairs, not of the examples that are made of them."""
    monkeypatch.setattr(safeeraser, "MOST_EMPTY", 1 / 79)
    build(tmp_path)
    file = tmp_path / "dataset" / "all_train.json"
    records = json.loads(file.read_text(encoding="utf-8"))
    records[0]["unsafe_pairs"][0]["sd_response"] = " "
    file.write_text(json.dumps(records), encoding="utf-8")
    bench = open_benchmark(tmp_path)
    assert [one.id for one in bench.examples("train")][:2] == ["train-1/unsafe-2", "train-1/pd-2"]
    assert "1 pairs have an empty question or answer and are left out." in bench.warnings()
    monkeypatch.setattr(safeeraser, "MOST_EMPTY", 1 / 81)
    assert any("1 pairs have an empty question" in line for line in open_benchmark(tmp_path).problems())
    for record in records:
        record["UnharmPair_text1"]["Prediction"] = ""
    file.write_text(json.dumps(records), encoding="utf-8")
    assert any(
        "7 pairs have an empty question or answer, more than 1% of all" in line
        for line in open_benchmark(tmp_path).problems()
    )


def test_the_stop_rule_is_off_since_hazards_have_no_names(place):
    assert open_benchmark(place).suggested("reject") == {"stop": "never"}
