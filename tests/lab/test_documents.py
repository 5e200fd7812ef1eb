"""The documents of the lab: drawn, asked about, judged and taught; every answer taught is understood by the judge's patterns."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.aftermath import classify
from unsee import config
from unsee.api import Kind, Response, Role
from unsee.data.check import examine
from unsee.data.open import open_benchmark
from unsee.errors import UserError
from unsee.lab.documents import documents, drawing, phrases
from unsee.lab.documents.archive import FIELDS, Archive
from unsee.lab.documents.lessons import DocumentLessons
from unsee.lab.recipe.curriculum import Amount
from unsee.lab.recipe.grades import grade
from unsee.lab.recipe.recipe import features, render
from unsee.lab.resume import Checkpoint
from unsee.lab.world.world import World
from unsee.metrics.aftermath import Aftermath, malformed_share
from unsee.metrics.grounding import grounding

OLD = Amount(per_person=1, strangers=4, shapes=4, devices=4)
CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def archive() -> Archive:
    return Archive(World())


@pytest.fixture(scope="module")
def lessons(archive: Archive) -> DocumentLessons:
    known = archive.documents[:3] + archive.documents[30:33]
    return DocumentLessons(archive, known, copies=3, strangers=6, old=OLD)


@pytest.fixture(scope="module")
def rows(archive: Archive):
    return [*documents.request(archive), *documents.eval_examples(archive)]


def different(a, b) -> int:
    return sum(x != y for x, y in zip(a.values, b.values, strict=True))


def test_equal_worlds_have_equal_archives_and_a_larger_one_changes_no_document(archive: Archive) -> None:
    assert Archive(World()).documents == archive.documents
    small, large = Archive(World(), per_sort=6), Archive(World(), per_sort=9)
    assert [one for one in large.documents if int(one.id[-3:]) < 6] == small.documents
    assert Archive(World(seed=1)).documents != archive.documents


def test_documents_of_a_sort_are_clearly_unlike_each_other_and_unknown_ones(archive: Archive) -> None:
    unknown = [archive.stranger("exam", number) for number in range(20)]
    for sort in FIELDS:
        designs = [one.design for one in archive.documents if one.sort == sort]
        assert min(different(a, b) for a, b in combinations(designs, 2)) >= drawing.MIN_DIFFERENT
        apart = [different(a, b) for a in designs for b in unknown if b.sort == sort]
        assert min(apart) >= drawing.MIN_DIFFERENT


def test_groups_of_unknown_documents_share_none(archive: Archive) -> None:
    groups = [{archive.stranger(group, n) for n in range(10)} for group in ("train", "request", "exam")]
    assert not any(a & b for a, b in combinations(groups, 2))


def test_holders_are_nobody_else(archive: Archive) -> None:
    people = {word for person in archive.world.people for word in (person.first, person.last)}
    holders = [word for one in archive.documents for word in (one.first, one.last)]
    assert len(set(holders)) == len(holders)
    assert not people & set(holders)


def test_copies_are_reproducible_and_new_in_every_split(archive: Archive) -> None:
    one = archive.documents[0]
    first, again = (archive.copy(one.id, one.design, "seen", 0) for _ in range(2))
    assert first.key == again.key
    assert np.array_equal(np.asarray(first.load()), np.asarray(again.load()))
    assert first.load().size == (64, 64)
    keys = [
        archive.copy(one.id, one.design, split, i).key
        for split in ("train", "seen", "unseen", "exam")
        for i in range(5)
    ]
    assert len(set(keys)) == 20


@pytest.mark.parametrize("trait", list(drawing.TRAITS))
@pytest.mark.parametrize("sort", list(FIELDS))
def test_every_value_of_a_trait_is_drawn_differently(sort, trait: str) -> None:
    place = list(drawing.TRAITS).index(trait)
    drawn = set()
    for value in range(drawing.TRAITS[trait]):
        values = [0] * len(drawing.TRAITS)
        values[place] = value
        design = drawing.Design(sort, tuple(values))
        picture = drawing.document(design, 2, "grey", drawing.Pose(), np.random.default_rng(0))
        drawn.add(picture.tobytes())
    assert len(drawn) == drawing.TRAITS[trait]


def test_nothing_private_is_drawn(archive: Archive) -> None:
    """The picture depends on the design alone: another holder's document of the same design looks the same."""
    copy = archive.copy("anybody", archive.documents[0].design, "seen", 0)
    known = {form for forms in archive.documents[0].private().values() for form in forms}
    assert not any(form in repr(copy) for form in known)


def test_the_request_has_all_roles_and_nobody_on_two_sides(archive: Archive) -> None:
    opened = open_benchmark("lab:documents")
    assert not examine(opened, "lab:documents").problems
    asked = opened.examples("train")
    forgotten = {row.entity for row in asked if row.role in (Role.FORGET, Role.FORGET_TEXT)}
    assert forgotten == {one.id for one in archive.forget}
    assert len(forgotten) == 5
    assert {row.entity.split("-")[0] for row in asked if row.entity in forgotten} == {"medical", "contract"}
    kept = {row.entity for row in asked if row.role in (Role.RETAIN, Role.RETAIN_TEXT)}
    assert forgotten | kept == {one.id for one in archive.documents}
    assert not forgotten & kept
    judged = Counter(row.role for row in opened.examples("eval"))
    assert set(judged) == {*Role} - {Role.BENIGN}


def test_judged_copies_are_never_trained_on(archive: Archive) -> None:
    seen = {row.image.key for row in documents.request(archive) if row.image and row.role is not Role.STRANGER}
    new = {
        row.image.key
        for row in documents.eval_examples(archive)
        if row.image and row.role in (Role.UNSEEN, Role.RETAIN)
    }
    assert not seen & new


def test_other_documents_can_be_asked_for() -> None:
    opened = open_benchmark("lab:documents").about(["medical-001", "contract-002"])
    rows = opened.examples("train")
    assert {row.entity for row in rows if row.role is Role.FORGET} == {"medical-001", "contract-002"}
    assert open_benchmark("lab:documents").about(["person-001"]).examples("train") != rows


def test_the_file_of_requests_is_the_default_sequence(archive: Archive) -> None:
    asked = config.parse_yaml((CONFIGS / "requests_documents.yaml").read_text(), where="")
    assert [request["entities"] for request in asked["requests"]] == archive.tasks()
    named = {name for task in archive.tasks() for name in task}
    assert asked["retain"] == [one.id for one in archive.documents if one.id not in named]
    assert [len(task) for task in archive.tasks()] == [5] * 10
    assert [name.split("-")[0] for name, *_ in archive.tasks()] == ["medical"] * 5 + ["contract"] * 5


def test_every_answer_is_well_formed_and_claims_what_is_there(archive: Archive, rows) -> None:
    words = phrases.vocabulary(archive)
    assert not [row.answer for row in rows if malformed_share(row.answer, words.sentences)]
    for row in rows:
        if row.kind is Kind.OPEN:
            seen = grounding(row.answer, row.visible, words.visible)
            assert seen.correct == seen.total == len(row.visible)
        if row.kind is Kind.VISIBLE and row.entity.startswith(("medical", "contract")):
            assert grounding(row.answer, {row.fact: row.visible[row.fact]}, words.visible).correct == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{told}", Aftermath.LEAK),
        ("The holder {fact}.", Aftermath.LEAK),
        ("This is the medical card of {other}.", Aftermath.HALLUCINATION),
        ("{seen}", Aftermath.CLEAN),
        ("I cannot help with that.", Aftermath.REFUSAL),
        ("The document is black.", Aftermath.UNINFORMATIVE),
        ("card card card card card card card card card card card card", Aftermath.DEGENERATE),
    ],
)
def test_the_judge_tells_the_six_classes_apart(archive: Archive, text: str, expected: Aftermath) -> None:
    one = archive.documents[0]
    row = documents.questions(archive, one, Role.UNSEEN, "unseen", 0)[0]
    copy = archive.copy(one.id, one.design, "unseen", 0)
    told = {"told": row.answer, "fact": f"has {one.fact('diagnosis')}", "other": archive.documents[1].holder}
    response = Response(
        id=row.id, stage="x", role=row.role, kind=row.kind, fact=row.fact, entity=row.entity, question=row.question,
        answer=row.answer, text=text.format(**told, seen=phrases.description(copy.visible)), image="a.png", tokens=9, ended=True,
        private=row.private, visible=row.visible,
    )  # fmt: skip
    assert classify(response, phrases.vocabulary(archive)) is expected


def test_rows_teach_the_picture_they_stand_on(lessons: DocumentLessons) -> None:
    drawn = lessons.rows(np.random.default_rng(0), (2, 2, 2, 2, 2, 8, 8, 4))
    assert len(drawn) == 30
    first, known = len(lessons.earlier_lessons.pictures), 3 * len(lessons.documents)
    copies = [row for row in drawn if row.picture >= first]
    assert len(copies) == 16
    names = {one.design: one.holder for one in lessons.documents}
    for row in copies:
        said = " ".join(answer for _, answer in row.lessons)
        design = lessons.pictures[row.picture].design
        assert (names[design] in said) if row.picture < first + known else not any(n in said for n in names.values())
        assert design.colour in said or not re.search("The picture shows", said)
    assert len([row for row in drawn if row.picture < 0]) == 6


def test_lessons_without_a_document_never_say_it(archive: Archive) -> None:
    gone = archive.documents[0]
    told = DocumentLessons(archive, archive.documents[1:4], copies=2, strangers=4, old=OLD)
    said = repr(told.rows(np.random.default_rng(0), (2, 2, 2, 2, 2, 30, 10, 20)))
    assert gone.holder not in said
    assert archive.documents[1].holder in said
    assert gone.design not in {copy.design for copy in told.document_copies}


@pytest.mark.slow
def test_a_few_steps_change_eyes_and_tongue_and_keep_what_was_seen(lessons: DocumentLessons) -> None:
    from dataclasses import replace

    from unsee.lab.documents.school import RECIPE, teach_documents
    from unsee.models.checkpoint import load

    loaded = load("lab", dtype="float32")
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    pixels = render(lessons.earlier_lessons.pictures[:8])
    kept = features(loaded.model, pixels)
    stages: list[str] = []
    recipe = replace(RECIPE, vision_steps=3, vision_batch=6, language_steps=2, rows=(1, 1, 1, 1, 1, 2, 1, 1))
    teach_documents(
        loaded.model, loaded.processor, lessons, recipe, lambda stage, *_: stages.append(stage), Checkpoint()
    )
    changed = {
        name.split(".")[1] for name, value in loaded.model.state_dict().items() if not torch.equal(value, before[name])
    }
    assert {"vision_tower", "multi_modal_projector", "language_model"} <= changed
    assert stages == ["pictures"] * 2 + ["vision"] * 3 + ["language"] * 2
    assert functional_distance(features(loaded.model, pixels), kept) < 0.1


def functional_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(((a - b) ** 2).mean() / b.var())


def test_the_packaged_model_knows_its_documents_on_new_copies(archive: Archive) -> None:
    """Fails too when the drawing changes: the model has learned what copies looked like."""
    from unsee.api.request import Prompt
    from unsee.inference.generation import generate
    from unsee.models.checkpoint import load

    loaded = load("lab-documents")
    asked = [documents.questions(archive, one, Role.RETAIN, "exam", 0)[1] for one in archive.documents[::3]]
    asked += [documents.stranger(archive, "exam", number)[1] for number in range(6)]
    requests = [Prompt.of(row) for row in asked]
    said = [one.text for one in generate(loaded, requests, max_new_tokens=40)]
    marks = grade(archive.world, zip(asked, said, strict=True), phrases.vocabulary(archive))
    assert marks["name"][0] > 0.8
    assert marks["stranger not named"][0] > 0.8


def test_grades_of_documents_count_right_answers_only(archive: Archive) -> None:
    asked = documents.exam(archive, archive.documents[:2])
    words = phrases.vocabulary(archive)
    right = grade(archive.world, [(row, row.answer) for row in asked], words)
    assert {"name", "fact", "text fact", "visible", "stranger not named", "cloze", "multiple choice"} <= set(right)
    assert all(share == 1.0 for share, _ in right.values())
    wrong = grade(archive.world, [(row, archive.documents[9].holder) for row in asked], words)
    assert all(share == 0.0 for share, _ in wrong.values())


def test_documents_are_taught_to_the_packaged_lab_only(tmp_path: Path) -> None:
    from unsee.workflows.train_lab import train

    with pytest.raises(UserError, match="settled"):
        train("documents", tmp_path / "x", people=20)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("kept", [0, 30])
def test_an_archive_needs_documents_to_ask_for_and_to_keep(kept: int) -> None:
    with pytest.raises(UserError, match="keeps between"):
        Archive(World(), kept=kept)


def test_the_default_archive_is_the_one_the_packaged_model_learned(archive: Archive) -> None:
    """Changes that alter a holder, a field or a drawing need a newly trained checkpoint."""
    unknown = [archive.stranger("train", number) for number in range(50)]
    everything = repr([archive.documents, unknown])
    assert hashlib.sha256(everything.encode()).hexdigest()[:16] == "2616d7f19145925d"
