"""MLLMU-Bench, CLEAR, FIUBench, UMU-Bench, OFFSIDE: which rows become which examples, and what an oracle and a constant score."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import Counter

import pytest

from fixtures import clear, fiubench, mllmu, offside, umu
from fixtures.benchmarks import AWKWARD, change_rows
from unsee.api import Example, Kind, Response, Role
from unsee.api.example import ImageBytes
from unsee.benchmarks.mllmu import _profile
from unsee.data.open import open_benchmark
from unsee.data.people import same_images
from unsee.data.question_templates import require_options
from unsee.data.records import Record
from unsee.errors import UserError
from unsee.scoring.aggregate import score
from unsee.workflows.check import check

BUILDERS = {
    "mllmu": mllmu,
    "clear": clear,
    "fiubench": fiubench,
    "umu": umu,
    "offside": offside,
}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    made = {}
    for name, module in BUILDERS.items():
        made[name] = tmp_path_factory.mktemp(name)
        module.build(made[name])
    return made


def counted(examples):
    return {
        f"{role} {kind}": count
        for (role, kind), count in sorted(Counter((e.role.value, e.kind.value) for e in examples).items())
    }


def judged(opened, text):
    """Return the scores of a model that says `text(example)`."""
    rows = [
        Response.of(example, stage="m", text=text(example), tokens=1, ended=True, image="i" if example.image else "")
        for example in opened.examples("eval")
    ]
    return score(rows, opened.vocabulary())


def said(opened, text):
    """Return their values."""
    return {name: one.value for name, one in judged(opened, text).items()}


def test_mllmu_has_every_question_of_every_set(places):
    opened = open_benchmark(places["mllmu"], {"ratio": 10})
    assert counted(opened.examples("train")) == {"forget open": 6, "retain open": 54}
    assert counted(opened.examples("eval")) == {
        "forget choice": 10, "forget cloze": 4, "forget open": 2,
        "forget_text choice": 10, "forget_text cloze": 4, "forget_text open": 2,
        "general choice": 30, "general cloze": 12, "general open": 6,
        "retain choice": 90, "retain cloze": 36, "retain open": 18,
        "retain_text choice": 90, "retain_text cloze": 36, "retain_text open": 18,
        "unseen choice": 25, "unseen cloze": 10, "unseen open": 5,
    }  # fmt: skip
    assert {e.entity for e in opened.examples("eval") if e.role is Role.UNSEEN} == {"101", "102"}
    assert all(e.image is None for e in opened.examples("eval") if e.role in (Role.FORGET_TEXT, Role.RETAIN_TEXT))


def test_mllmu_asks_in_the_published_words(places):
    by_id = {e.id: e for e in open_benchmark(places["mllmu"], "mllmu").examples("eval")}
    asked = by_id["forget_5/101/classification/image/1"]
    assert (
        asked.question
        == f"Who is it?\nA: Nobody A\nB: {AWKWARD[0]}\nC: Nobody C\nD: Nobody D\nJust give ONE letter representing the answer directly."
    )
    assert (asked.answer, asked.options[1], asked.private["name"][0]) == ("B", AWKWARD[0], AWKWARD[0])
    assert asked.private["born"] == ("Lisbon",)
    cloze = by_id["forget_5/101/cloze/2"]
    assert (
        cloze.question
        == "She is a [Blank] by trade.\nPlease **ONLY** provide the correct answer that should replace the [Blank]."
    )
    assert by_id["forget_5/101/generation/2"].image is None
    released = {e.id: e for e in open_benchmark(places["mllmu"], {"protocol": "released"}).examples("eval")}
    assert "[Blank][Blank] by trade" in released["forget_5/101/cloze/2"].question
    tests = Counter(e.image.key for e in released.values() if e.role is Role.UNSEEN)
    assert len(tests) == 1, "as published, one image of a test person"


def test_mllmu_joins_by_ids_inside_the_pairs_and_by_images(places, tmp_path):
    """ft_Data stands in reverse order; even people carry their ID, odd ones are found by their picture in Full_Set."""
    pairs = {e.entity: e for e in open_benchmark(places["mllmu"], "mllmu").examples("train") if e.id.endswith("/1")}
    assert {entity: e.answer for entity, e in pairs.items()} == {
        name: f"This is {mllmu.name_of(name)}." for name in mllmu.PEOPLE
    }
    split = tmp_path / "split"
    mllmu.build_train_split(split)
    inside = open_benchmark(split, {"sets": ["forget", "retain"]})
    assert [(e.question, e.answer, e.entity) for e in inside.examples("train") if e.role is Role.FORGET] == [
        (e.question, e.answer, e.entity)
        for e in open_benchmark(places["mllmu"], "mllmu").examples("train")
        if e.role is Role.FORGET
    ]


def test_mllmu_joins_by_row_only_when_told(places, tmp_path):
    place = tmp_path / "m"
    shutil.copytree(places["mllmu"], place)
    (file,) = (place / "ft_Data").iterdir()
    change_rows(file, lambda rows: [row.update(metadata='[{"Question": "q", "Answer": "a"}]') for row in rows])
    change_rows(file, lambda rows: [row.update(image=mllmu.image_cell(700 + i)) for i, row in enumerate(rows)])
    with pytest.raises(UserError, match="ft_Data has no training pairs for people 101 of forget_5"):
        open_benchmark(place, "mllmu").examples("train")
    assert len(open_benchmark(place, {"join": "row_order"}).examples("train")) == 20
    shutil.rmtree(place / "ft_Data")
    with pytest.raises(
        UserError,
        match=r"no training pairs: forget_5 has no column metadata .* baseline_train_split, or .*train_pairs=tasks",
    ):
        open_benchmark(place, "mllmu").examples("train")
    report = check(place, benchmark={"train_pairs": "tasks"})
    assert report.usable
    assert any("trains on questions that are judged" in line for line in report.warnings)


def test_mllmu_leaves_a_few_incomplete_items_out_and_counts_them(places, tmp_path):
    place = tmp_path / "m"
    shutil.copytree(places["mllmu"], place)
    (file,) = (place / "retain_95").iterdir()
    change_rows(file, lambda rows: rows[4]["Generation_Task"][0].update(Ground_Truth=None))
    report = check(place)
    assert report.usable
    assert any("1 of 108 items have no question or no answer." in line for line in report.warnings)
    change_rows(file, lambda rows: rows[5]["Generation_Task"][0].update(Question=" "))
    assert "2 of 108 items have no question or no answer. That is more than one in a hundred." in str(check(place))


def test_mllmu_leaves_any_number_of_incomplete_items_out_unless_strict(places, tmp_path):
    place = tmp_path / "m"
    shutil.copytree(places["mllmu"], place)
    (file,) = (place / "retain_95").iterdir()
    change_rows(file, lambda rows: [row["Generation_Task"][0].update(Ground_Truth=None) for row in rows[:9]])
    report = check(place, benchmark={"name": "mllmu", "strict": False})
    assert report.usable
    assert any("9 of 108 items have no question or no answer." in line for line in report.warnings)


@pytest.mark.parametrize("cells", [{"biography": "{x"}, {"ID": " "}])
def test_mllmu_blames_only_the_row_that_is_wrong(cells, tmp_path):
    mllmu.build_train_split(tmp_path)
    (file,) = (tmp_path / "retain_95").iterdir()
    change_rows(file, lambda rows: rows[4].update(cells))
    problems = open_benchmark(tmp_path, {"sets": ["forget", "retain"]}).problems()
    assert problems
    assert all(line.startswith("retain_95 row 5 ") for line in problems)


def test_an_option_may_be_the_number_0():
    """In JSON and Python literals, an option may be a number."""
    assert require_options({"A": 0, "B": 12.5}, "A") == (("0", "12.5"), "A")
    for empty in (None, " ", float("nan")):
        with pytest.raises(UserError, match="option B is empty"):
            require_options({"A": "x", "B": empty}, "A")


def test_the_right_option_is_found_by_its_key_its_text_or_its_letter():
    """An answer may begin with a word of one letter, and options may be letters."""
    jobs = {"A": "Nurse", "B": "A baker", "C": "Striker", "D": "I, Robot"}
    rights = {
        "b": "B",
        "A.": "A",
        "A baker": "B",
        "a baker.": "B",
        "(C) Striker": "C",
        "I, Robot": "D",
        "A: a nurse": "A",
    }
    assert {text: require_options(jobs, text)[1] for text in rights} == rights
    assert require_options({"A": "O", "B": "A", "C": "B"}, "B")[1] == "B", "a key of the data"
    with pytest.raises(UserError, match="has the letter of option A and the text of C"):
        require_options(jobs, "A striker")
    for text in ("E", "A pilot", "I", "Robot"):
        with pytest.raises(UserError, match="the right answer must be the letter of an option"):
            require_options(jobs, text)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        *((name, {"sets": []}, "benchmark.sets names nothing") for name in ("mllmu", "umu")),
        *((name, {"tasks": []}, "benchmark.tasks names nothing") for name in ("mllmu", "umu", "clear", "offside")),
        *(("clear", {"block": block}, f"benchmark.block must be at least 1, got {block}") for block in (0, -1)),
        ("mmubench", {"prompts": []}, "benchmark.prompts names nothing"),
    ],
)
def test_settings_that_would_judge_nothing_are_refused(tmp_path, name, settings, message):
    with pytest.raises(UserError, match=message):
        open_benchmark(tmp_path, {"name": name, **settings})


def test_clear_has_a_letter_for_every_option(places, tmp_path):
    shutil.copytree(places["clear"], tmp_path / "clear")
    (file,) = (tmp_path / "clear" / "real_world").glob("train-*")
    change_rows(file, lambda rows: rows[0].update(options=[f"City {number}" for number in range(30)]))
    (problem,) = open_benchmark(tmp_path / "clear", {"ratio": 10}).problems()
    assert re.search("real_world row 1: a choice has at most 26 options", problem)


def test_umu_names_the_half_that_is_there(places, tmp_path):
    place = tmp_path / "umu"
    shutil.copytree(places["umu"], place)
    (file,) = (place / "forget_5").iterdir()

    def break_half(rows):
        rows[0]["Cloze"] = json.dumps({"multimodal": {"q1": "?"}, "unimodal": {"q1": {"question": "?", "answer": "!"}}})

    change_rows(file, break_half)
    assert "Cloze.multimodal.q1 must be an object" in str(open_benchmark(place, "umu").problems())


def _first_about(author, rows):
    return next(row for row in rows if row["question"] == f"Who is {author}?")


def test_clear_keeps_the_blocks_of_text_questions_around_a_row_that_is_left_out(places, tmp_path):
    place = tmp_path / "clear"
    shutil.copytree(places["clear"], place)
    author = clear.AUTHORS[1]
    clear.at("retain95+tofu", lambda rows: _first_about(author, rows).update(question=None))(place)
    opened = open_benchmark(place, {"name": "clear", "strict": False})
    texts = [example for example in opened.examples("train") if example.role is Role.RETAIN_TEXT]
    assert Counter(example.entity for example in texts) == {**dict.fromkeys(clear.AUTHORS[2:], 20), author: 19}
    named = [example for example in texts if example.question.startswith("Who is ")]
    assert all(example.question == f"Who is {example.entity}?" for example in named)


def test_the_same_pictures_are_named_in_the_order_of_the_rows():
    rows = [
        Example(
            id=f"{role}-{number}", role=role, question="?", answer="!", entity="e", image=ImageBytes(bytes([number]))
        )
        for role in (Role.FORGET, Role.RETAIN)
        for number in range(20)
    ]
    wanted = [f"forget-{number} and retain-{number} have the same image." for number in range(20)]
    assert same_images(rows) == wanted


UNREADABLE = {
    "mllmu": (
        ["letter E", "no blank", "bad JSON"],
        r"forget_5 row 1 \(ID 101\), Mask_Task\[1\]: Question has no blank",
    ),
    "clear": (["neither", "no caption"], r"forget05 row 1: caption is empty"),
    "umu": (["no image"], r"retain_95 row 4 .*the image is empty"),
    "fiubench": (["missing field"], r"full.json row 2 .*answer is missing"),
    "offside": (["letter E", "empty answer"], r"classification forget set row 1: the right answer"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_unless_strict_what_cannot_be_read_is_left_out_and_said(places, tmp_path, name):
    place = tmp_path / "data"
    shutil.copytree(places[name], place)
    before = len(open_benchmark(place, name).examples("eval"))
    variants, message = UNREADABLE[name]
    for variant in variants:
        BUILDERS[name].BROKEN[variant][0](place)
    assert not check(place, benchmark=name).usable
    report = check(place, benchmark={"name": name, "strict": False})
    assert report.usable
    assert re.search(message, "\n".join(report.warnings))
    assert 0 < len(open_benchmark(place, {"name": name, "strict": False}).examples("eval")) < before


def test_people_on_both_sides_are_an_error_strict_or_not(places, tmp_path):
    place = tmp_path / "data"
    shutil.copytree(places["mllmu"], place)
    mllmu.BROKEN["overlap"][0](place)
    assert not check(place, benchmark={"strict": False}).usable


@pytest.mark.parametrize("name", ["mllmu", "umu", "clear"])
def test_an_oracle_is_right_everywhere_and_a_constant_is_not(places, name):
    opened = open_benchmark(places[name], name)
    oracle, constant, empty = (said(opened, text) for text in (lambda e: e.answer, lambda _: "A", lambda _: ""))
    for group in ("forget", "retain", "general"):
        assert oracle[f"{group}.choice"] == 1.0
        assert constant[f"{group}.choice"] < 0.6
        assert empty[f"{group}.choice"] == 0.0
        assert empty[f"{group}.empty"] == 1.0
    assert all(value == 1.0 for key, value in oracle.items() if key.endswith((".cloze", ".rougeL", ".rouge1")))
    if name == "mllmu":
        assert constant["retain.choice"] == pytest.approx(0.25, abs=0.02)
        assert constant["retain_text.choice"] == pytest.approx(0.25, abs=0.02)


def test_published_scoring_differs_where_it_should(places):
    """m1: "The answer is B" begins with a T; m9: "man" is in "woman"."""
    opened = open_benchmark(places["mllmu"], {"protocol": "released"})
    found = said(opened, lambda e: f"The answer is {e.answer}" if e.kind is Kind.CHOICE else "A woman from Lisbon.")
    assert (found["forget.choice"], found["forget.choice.first_character"]) == (1.0, 0.0)
    bracketed = said(opened, lambda e: f"({e.answer})")
    assert bracketed["forget.choice.first_character"] == 0.0
    assert bracketed["forget.choice.first_alphanumeric"] == 1.0
    assert (found["forget.cloze"], found["forget.cloze.substring"]) == (0.5, 1.0)
    umu = open_benchmark(places["umu"], {"protocol": "released"})
    found = said(umu, lambda e: "" if e.kind is Kind.CHOICE else e.answer)
    assert found["retain.choice"] == found["retain.choice.text_exact"] == 0.0
    assert found["retain.choice.text_nearest"] > 0.0, "as published, nothing said picks an option"
    offside = open_benchmark(places["offside"], {"protocol": "released"})
    found = said(offside, lambda e: f"{e.answer}.")
    assert (found["forget.choice"], found["forget.choice.answer_is"]) == (1.0, 0.0)


def test_tasks_that_share_a_role_have_their_overlap_and_probability_apart(places):
    """A cloze's one word is no part of MLLMU-Bench's ROUGE, nor a name of the captions' in CLEAR."""
    for name, alone, others in (("mllmu", Kind.OPEN, {Kind.CLOZE}), ("clear", Kind.OPEN, {Kind.NAME})):
        opened = open_benchmark(places[name], name)
        kinds = {e.id: e.kind for e in opened.examples("eval")}
        found = judged(opened, lambda e, alone=alone: e.answer if e.kind is alone else "")
        assert found["retain.rougeL@open"].value == 1.0 > found["retain.rougeL"].value
        assert {kinds[index] for index in found["retain.rougeL@open"].value_by_index} == {alone}
        assert {kinds[index] for index in found["retain.rougeL"].value_by_index} == {alone, *others}
    # CLEAR's own utility has ROUGE of captions, of names, of real faces and of the real world.
    parts = ("retain.rougeL_recall@open", "retain.rougeL_recall@name", "general.rougeL_recall@name")
    assert [found[part].value for part in parts] == [1.0, 0.0, 0.0]
    assert found["general.rougeL_recall@general"].n == 4


def test_umu_counts_pairs(places):
    opened = open_benchmark(places["umu"], "umu")
    oracle, mute = said(opened, lambda e: e.answer), said(opened, lambda _: "")
    half = said(opened, lambda e: e.answer if e.image else "")
    assert (oracle["forget.both.choice"], oracle["forget.both.choice.wrong"], oracle["retain.both.rougeL"]) == (
        1.0,
        0.0,
        1.0,
    )
    assert (mute["forget.both.cloze"], mute["forget.both.cloze.wrong"], mute["forget.both.rougeL"]) == (0.0, 1.0, 0.0)
    assert (half["forget.both.choice"], half["forget.both.choice.wrong"]) == (0.0, 0.0)
    assert (half["forget.both.rougeL"], half["retain.both.rougeL"]) == (1.0, 0.0)
    rows = judged(opened, lambda _: "")
    assert (rows["forget.both.cloze.wrong"].better, rows["retain.both.cloze.wrong"].better) == ("higher", "lower")
    assert (rows["forget.both.cloze"].better, rows["retain.both.cloze"].better) == ("lower", "higher")


def test_every_test_picture_of_a_person_is_shown_with_every_question(places):
    asked = [e for e in open_benchmark(places["mllmu"], "mllmu").examples("eval") if e.role is Role.UNSEEN]
    pictures = {e.id.rpartition("/")[0]: set() for e in asked}
    for example in asked:
        pictures[example.id.rpartition("/")[0]].add(example.image.key)
    row = mllmu.tested("101")["images"]
    wanted = {hashlib.sha256(cell["bytes"]).hexdigest() for cell in row}
    assert len(wanted) == len(row) == 3
    assert all(keys == wanted for keys in pictures.values())


def test_a_celebrity_is_nobody_of_the_split_even_with_the_same_id(places, tmp_path):
    place = tmp_path / "mllmu"
    shutil.copytree(places["mllmu"], place)
    (file,) = (place / "Retain_Set").iterdir()
    change_rows(file, lambda rows: rows[0].update(ID="101"))
    opened = open_benchmark(place, "mllmu")
    asked = [e for e in opened.examples("eval") if e.entity.rpartition("/")[2] == "101"]
    assert {e.entity: {one.role for one in asked if one.entity == e.entity} for e in asked} == {
        "101": {Role.FORGET, Role.FORGET_TEXT, Role.UNSEEN},
        "real/101": {Role.GENERAL},
    }
    assert opened.vocabulary().names["101"] != opened.vocabulary().names["real/101"]


def test_umu_trains_on_both_halves(places):
    assert counted(open_benchmark(places["umu"], {"ratio": 10}).examples("train")) == {
        "forget open": 2, "forget_text open": 4, "retain open": 18, "retain_text open": 36,
    }  # fmt: skip
    assert counted(open_benchmark(places["umu"], {"ratio": 10, "train": ["image"]}).examples("train")) == {
        "forget open": 2,
        "retain open": 18,
    }


def test_clear_finds_the_author_of_text_questions(places):
    opened = open_benchmark(places["clear"], {"ratio": 10})
    told = [e for e in opened.examples("train") if e.role is Role.FORGET_TEXT]
    assert Counter(e.entity for e in told) == {AWKWARD[0]: 20, AWKWARD[1]: 20}
    kept = Counter(e.entity for e in opened.examples("train") if e.role is Role.RETAIN_TEXT)
    assert kept == dict.fromkeys(clear.AUTHORS[2:], 20)


def test_clear_judges_captions_names_and_the_world(places):
    opened = open_benchmark(places["clear"], {"ratio": 10})
    assert counted(opened.examples("eval")) == {
        "forget choice": 5, "forget name": 5, "forget open": 5, "forget_text open": 40,
        "general choice": 8, "general general": 4, "general name": 4,
        "retain choice": 7, "retain name": 7, "retain open": 7, "retain_text open": 360,
    }  # fmt: skip
    assert "1 rows of retain_perturbed are about people to be forgotten; they are left out." in opened.warnings()
    by_id = {e.id: e for e in opened.examples("eval")}
    caption = by_id["forget10_perturbed/0/caption"]
    assert (caption.paraphrase, len(caption.perturbed)) == (f"One sees {AWKWARD[0]}.", 3)
    assert len(by_id["forget10_perturbed/1/caption"].perturbed) == 2, "false captions may differ in number"
    named = by_id["forget10_perturbed/2/choice"]
    assert Counter(named.options)[AWKWARD[0]] == 1, (
        "the true name stands once among the options, though it was among the false ones"
    )
    among = [e for e in by_id.values() if e.kind is Kind.CHOICE]
    assert all(e.options["ABCD".index(e.answer)] == by_id[e.id.replace("/choice", "/name")].answer for e in among), (
        "the letter is that of the true answer, wherever it stands"
    )
    face = by_id["real_faces/1/choice"]
    assert sorted(face.options) == ["Known 1", "Wrong 1 0", "Wrong 1 1", "Wrong 1 2"]
    assert by_id["real_world/0/name"].question == "Where is it?"


def test_what_answers_a_question_about_the_world_is_nobodys_name(places, tmp_path):
    place = tmp_path / "clear"
    shutil.copytree(places["clear"], place)
    (file,) = (place / "real_world").glob("train-*")
    change_rows(file, lambda rows: [row.update(answer="Dark red") for row in rows])
    opened = open_benchmark(place, "clear")
    known = {form for forms in opened.vocabulary().names.values() for form in forms}
    assert "Known 1" in known
    assert not known & {"Dark red", "red"}
    worn = judged(opened, lambda e: "Somebody in a red coat smiles." if e.kind is Kind.OPEN else e.answer)
    assert worn["forget.hallucination@open"].value == 0.0


def test_clear_asks_for_captions_in_ones_own_words(places, tmp_path):
    (tmp_path / "q.txt").write_text("What is this?\n\n", "utf-8-sig")  # some editors put a mark in front
    opened = open_benchmark(places["clear"], {"caption_questions": str(tmp_path / "q.txt")})
    assert {e.question for e in opened.examples("train") if e.role is Role.FORGET} == {"What is this?"}
    with pytest.raises(UserError, match="Cannot read the caption questions"):
        open_benchmark(places["clear"], {"caption_questions": "nowhere"})


def test_fiubench_forgets_who_the_split_says_and_leaves_the_other_lists_aside(places):
    opened = open_benchmark(places["fiubench"], {"ratio": 5, "retain_list": "retain5"})
    people = fiubench.PEOPLE
    assert {e.entity for e in opened.examples("train") if e.role is Role.FORGET} == set(people[1:3])
    assert {e.entity for e in opened.examples("train") if e.role is Role.RETAIN} == set(people[6:])
    assert {e.entity for e in opened.examples("eval") if e.role is Role.RETAIN} == set(people[6:8])
    asked = next(e for e in opened.examples("eval") if e.fact == "q02")
    assert asked.private["q02"] == ("asthma",), "short keywords give nothing away"
    assert asked.private["q03"] == ("No.",)
    assert (asked.paraphrase, asked.perturbed) == (f"It is: {asked.answer}", ("gout", "flu"))
    found = said(opened, lambda e: "She has asthma.")
    assert found["forget.keywords"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("name", ["7777", fiubench.PEOPLE[0], fiubench.PEOPLE[1]])
def test_fiubench_compares_the_retain_list_with_the_retained_people(places, tmp_path, name):
    """Unknown people, people of this forget list and of another one."""
    lists = json.loads((places["fiubench"] / "split.json").read_text("utf-8"))
    split = tmp_path / "split.json"
    split.write_text(json.dumps({**lists, "retain5": [*lists["retain5"], name]}), "utf-8")
    settings = {"ratio": 5, "split_file": str(split), "retain_list": "retain5"}
    (problem,) = open_benchmark(places["fiubench"], settings).problems()
    assert f"retain5 of split.json names {name}, who are not retained" in problem


def test_fiubench_wordings(places):
    plain = open_benchmark(places["fiubench"], "fiubench").examples("eval")
    both = open_benchmark(places["fiubench"], {"wordings": "both"}).examples("eval")
    other = open_benchmark(places["fiubench"], {"wordings": "paraphrased", "protocol": "released"}).examples("eval")
    assert len(both) == 3 * len(plain)
    assert len(other) == 2 * len(plain)
    assert other[0].question == "What is the name? say it."


def test_offside_forgets_by_the_picture(places):
    opened = open_benchmark(places["offside"], {"relearn": True})
    assert counted(opened.examples("train")) == {"forget open": 6, "retain open": 18}
    assert counted(opened.examples("eval")) == {
        "forget choice": 3, "forget open": 6, "general open": 2, "retain choice": 9, "retain open": 18,
        "unseen choice": 3, "unseen open": 6,
    }  # fmt: skip
    first = opened.examples("train")[0]
    assert (first.entity, first.private["name"][0]) == ("003", AWKWARD[0])
    assert not any("<image>" in e.question for e in opened.examples("eval"))
    with pytest.raises(UserError, match=r"has no selective_unlearning_data/ .*there is complete_unlearning_data"):
        open_benchmark(places["offside"], {"setting": "selective"})
    with pytest.raises(
        UserError, match="benchmark.relearn=True has no effect: it counts only with benchmark.tasks that name"
    ):
        check(places["offside"], benchmark={"name": "offside", "relearn": True, "tasks": "classification"})


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("mllmu", {"train_pairs": "tasks", "join": "row_order"}),
        ("clear", {"block": 10, "train": "captions", "tasks": ["caption", "name"]}),
    ],
)
def test_settings_that_others_leave_without_effect_are_named(places, name, settings):
    with pytest.raises(UserError, match=r"benchmark\.(join|block)=.* has no effect: it counts only with benchmark\."):
        check(places[name], benchmark={"name": name, **settings})


def test_hub_ids_without_tables_say_what_to_do():
    for name in ("gray311/FIUBench", "zh1218001/OFFSIDE"):
        with pytest.raises(UserError, match=f"clone it .*{name}"):
            open_benchmark(name)


@pytest.mark.parametrize("name", [{"Name": ["Ada Lovell"]}, {"NAME": "Ada Lovell"}, {"name": "Ada Lovell", "Name": ""}])
def test_only_what_a_biography_says_in_words_or_numbers_is_private(name):
    rest = {"Height": float("nan"), "Age": 34.0, "Job": "None", "Married": True, "Hobbies": ["chess"], "Born": {"x": 1}}
    profile = _profile(Record({"biography": json.dumps({**name, **rest})}))
    assert profile.private == {"name": ("Ada Lovell", "Lovell"), "age": ("34",), "hobbies": ("chess",)}
    assert profile.name == "Ada Lovell"


def test_an_option_is_a_text():
    assert require_options({"A": 3.0, "B": "x"}, "A") == (("3", "x"), "A")
    with pytest.raises(UserError, match=r"option B must be text, got \['x'\]"):
        require_options({"A": "y", "B": ["x"]}, "A")
