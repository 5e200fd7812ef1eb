"""English of `lab-smol`, its lessons, and its training on a two-layer cut of the real base."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from unsee.api import Kind, Role
from unsee.benchmarks.lab import Lab
from unsee.cli import main
from unsee.errors import UserError
from unsee.lab.recipe.grades import grade
from unsee.lab.recipe.model import CHAT_TEMPLATE as LAB_TEMPLATE
from unsee.lab.smol import english, examples, general, grades
from unsee.lab.smol.lessons import English
from unsee.lab.smol.school import AMOUNT, SmolRecipe
from unsee.lab.world.people import FACTS, stream
from unsee.lab.world.portraits import VISIBLE
from unsee.lab.world.world import World
from unsee.models import smollm2

SMALL = replace(AMOUNT, per_person=4, strangers=10, shapes=6, devices=12)


@cache
def world() -> World:
    return examples.world()


def looks() -> list[dict[str, str]]:
    """Every value of every attribute at least once, in many combinations."""
    rng = stream(0, "looks")
    return [{name: str(rng.choice(values)) for name, values in VISIBLE.items()} for _ in range(200)]


class Draw:
    """Generator that always draws one place."""

    def __init__(self, place: int) -> None:
        self.place = place

    def integers(self, count: int) -> int:
        return self.place % count


def claimed(text: str) -> dict[str, list[str]]:
    return {
        attribute: [value for value, form in values.items() if re.search(form, text.lower())]
        for attribute, values in english.claim_patterns().items()
    }


@pytest.mark.parametrize("form", range(len(english.DESCRIPTIONS)))
def test_every_description_claims_exactly_what_is_visible(form: int) -> None:
    for look in looks():
        text = english.description(look, Draw(form))
        assert claimed(text) == {name: [value] for name, value in look.items()}, text


@pytest.mark.parametrize("attribute", VISIBLE)
def test_every_answer_about_an_attribute_claims_its_value_alone(attribute: str) -> None:
    for value, form in product(VISIBLE[attribute], range(3)):
        found = claimed(english.visible_answer(attribute, value, Draw(form)))
        assert found[attribute] == [value]
        assert sum(map(len, found.values())) == 1


def test_no_judged_question_is_taught() -> None:
    taught = {wording for forms in english.TAUGHT.values() for wording in forms}
    judged = {wording for forms in english.JUDGED.values() for wording in forms}
    assert not taught & judged
    assert english.STEP_JUDGED not in english.STEP_BY_STEP
    lessons = English(world(), world().people, SMALL)
    asked = {
        lesson[0]
        for _ in range(30)
        for row in lessons.rows(np.random.default_rng(1), (12, 4, 2, 2, 6))
        for lesson in row.lessons
    }
    assert not asked & {
        example.question for example in (*examples.exam(world(), world().people), *examples.judged(world()))
    } - set(english.CLOZE.values())


@pytest.mark.parametrize("fact", [*FACTS, "country", "decade"])
def test_questions_about_a_person_can_be_asked_by_name(fact: str) -> None:
    for wording in (*english.TAUGHT[fact], *english.JUDGED[fact]):
        asked = english.by_name(wording, "Ada Lind")
        assert "Ada Lind" in asked
        assert not re.search("person|individual", asked)


def test_every_true_answer_is_graded_right() -> None:
    rows = [*examples.exam(world(), world().people), *examples.judged(world())]
    marks = grade(world(), ((row, row.answer) for row in rows), examples.vocabulary(world()), grades.right)
    assert {subject: share for subject, (share, _) in marks.items() if share < 1} == {}
    assert {"name", "fact", "text fact", "world", "chain", "cloze", "multiple choice", "privacy obeyed"} <= marks.keys()


def test_answers_about_somebody_else_are_graded_wrong() -> None:
    one, other = world().people[0], world().people[1]
    rows = zip(
        examples.probes(world(), one, Role.RETAIN, "exam", 0),
        examples.probes(world(), other, Role.RETAIN, "exam", 0),
        strict=True,
    )
    marks = grade(world(), ((mine, theirs.answer) for mine, theirs in rows), examples.vocabulary(world()), grades.right)
    assert marks["name"][0] == 0
    assert marks["fact"][0] < 0.5


def test_rows_have_unique_ids_and_the_same_ones_each_time() -> None:
    for made in (examples.request, examples.judged):
        rows = made(world())
        assert len({row.id for row in rows}) == len(rows)
        assert rows == made(examples.world())


def test_forget_entities_are_among_those_the_tower_never_saw() -> None:
    assert {person.id for person in world().forget} <= {person.id for person in World().forget}
    assert [person.name for person in world().people] == [person.name for person in World().people[26:46]]


def test_world_questions_of_lessons_and_evaluations_are_disjoint() -> None:
    taught, judged = ({row.question for row in rows} for rows in (general.taught(), general.judged()))
    assert len(judged) >= 200
    assert not taught & judged
    assert all(grades.right(row, row.answer) for row in general.judged())


def test_gold_lessons_never_speak_of_the_forget_set() -> None:
    lessons = English(world(), world().retain, SMALL, (), examples.FORGET)
    rng = np.random.default_rng(0)
    said = " ".join(
        " ".join(lesson) for _ in range(60) for row in lessons.rows(rng, (12, 3, 1, 1, 4)) for lesson in row.lessons
    )
    assert not [person.last for person in world().forget if person.last in said]


def test_new_people_have_half_of_the_pictures() -> None:
    lessons = English(world(), world().people, SMALL, (), examples.FORGET)
    rows = [row for _ in range(20) for row in lessons.rows(np.random.default_rng(3), (12, 0, 0, 0, 0))]
    new = [row for row in rows if world().people[row.picture // SMALL.per_person].id in examples.FORGET]
    assert 0.5 <= len(new) / len(rows) < 0.7


def test_benchmark_gives_the_english_world() -> None:
    lab = Lab(request="english")
    assert len(lab.examples("eval")) == len(examples.judged(world()))
    assert {row.entity for row in lab.examples("train") if row.role is Role.FORGET} == set(examples.FORGET)
    assert not lab.vocabulary().sentences


def test_a_world_file_names_its_language(tmp_path: Path) -> None:
    (tmp_path / "world.json").write_text('{"size": 20, "first": 26, "language": "english", "chosen": ["person-027"]}')
    lab = Lab(tmp_path)
    assert [person.id for person in lab.world.forget] == ["person-027"]
    assert any(row.kind is Kind.GENERAL and row.fact == "world" for row in lab.examples("eval"))
    (tmp_path / "world.json").write_text('{"language": "latin"}')
    with pytest.raises(UserError, match="lab or english, got 'latin'"):
        Lab(tmp_path)


def test_a_missing_base_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(smollm2, "find_spec", lambda name: None if name == smollm2.PACKAGE else real(name))
    assert main.main(["train", "lab", "--backbone", "smollm2", "--out", str(tmp_path / "new")]) == 2
    assert "make smol" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_settled_people_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["train", "lab", "--backbone", "smollm2", "--people", "8", "--out", str(tmp_path / "new")]) == 2
    assert "--people" in capsys.readouterr().err


@pytest.mark.smol
@pytest.mark.slow
def test_recipe_on_two_layers_trains_resumes_and_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four steps in one go give the weights of two calls; what is put together from the parts is the trained model."""
    import torch

    from unsee.lab.resume import Checkpoint
    from unsee.lab.smol.school import Course, train_smol
    from unsee.models.builtin import checkpoint

    tower = checkpoint("lab-gold")
    recipe = SmolRecipe(
        align_steps=2,
        read_steps=1,
        steps=3,
        steps_before=1,
        rank=2,
        read_rows=(2, 1),
        cards=(2, 1),
        card_steps=2,
        rows_after=(2, 1, 1, 1, 1),
        rows_late=(2, 1, 1, 1, 1),
        captions=(1, 0),
        rows=(2, 1, 1, 1, 1),
        kept_rows=1,
        groups=2,
    )

    def trained(file: Path | None, steps: int) -> dict[str, torch.Tensor]:
        model, processor = smollm2.build(tower, layers=2)
        courses = tuple(
            Course.of(model, English(world(), people, SMALL, (), new))
            for people, new in ((world().retain, ()), (world().people, examples.FORGET))
        )
        stopped = Checkpoint(file, every=1)

        def progress(stage: str, step: int, of: int, loss: float) -> None:
            if stage == "language" and step == steps + 1:
                raise KeyboardInterrupt

        lora = train_smol(model, processor, courses, recipe, progress, stopped)
        smollm2.save_parts(tmp_path / "parts", model, lora, rank=2, alpha=recipe.alpha)
        return smollm2.parts_of(model, lora)

    (tmp_path / "parts").mkdir()
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "state.pt", 3)
    resumed = trained(tmp_path / "state.pt", 9)
    whole = trained(None, 9)
    torch.testing.assert_close(resumed, whole, atol=5e-5, rtol=0)  # an fp16 step; sums on a CPU differ from run to run
    assert any(tensor.abs().sum() > 0 for name, tensor in whole.items() if "lora_B" in name)
    monkeypatch.setattr(smollm2, "language_model", lambda layers=0, real=smollm2.language_model: real(2))
    model, processor = smollm2.merged(tmp_path / "parts", tower)
    assert "<|im_start|>" in smollm2.CHAT_TEMPLATE != LAB_TEMPLATE
    asked = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Who?"}]}]
    )
    inputs = processor(
        text=asked, images=[world().picture("a", world().people[0].face, "exam", 0).load()], return_tensors="pt"
    )
    assert int((inputs["input_ids"] == model.config.image_token_id).sum()) == 16
    assert model(**inputs).logits.shape[-1] == 49153


@pytest.mark.smol
def test_another_base_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / smollm2.FILE).write_bytes(b"GGUF")
    monkeypatch.setattr(smollm2, "folder", lambda: tmp_path)
    with pytest.raises(UserError, match="expected b179c952"):
        smollm2.language_model()
