"""English of `lab-smol`, its lessons, and its training on a two-layer cut of the real base."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from helpers.scripts import script
from unsee.api import Kind, Response, Role
from unsee.benchmarks.lab import Lab
from unsee.cli import main
from unsee.errors import UserError
from unsee.inference.likelihood import Likelihood
from unsee.lab.recipe.grades import grade
from unsee.lab.recipe.model import CHAT_TEMPLATE as LAB_TEMPLATE
from unsee.lab.smol import captions, english, examples, general, grades
from unsee.lab.smol.fluency import fluency
from unsee.lab.smol.lessons import English
from unsee.lab.smol.school import AMOUNT, SmolRecipe
from unsee.lab.world.people import FACTS, stream
from unsee.lab.world.portraits import VISIBLE
from unsee.lab.world.world import World
from unsee.models import builtin, smollm2, smollm2_package

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
    final = {wording for forms in english.FINAL.values() for wording in forms} | {*english.CLOZE_FINAL.values()}
    assert not taught & judged
    assert not final & (taught | judged | {*english.CLOZE.values()})
    assert len({english.STEP_JUDGED, english.STEP_FINAL, *english.STEP_BY_STEP}) == len(english.STEP_BY_STEP) + 2
    lessons = English(world(), world().people, SMALL)
    asked = {
        lesson[0]
        for _ in range(30)
        for row in lessons.rows(np.random.default_rng(1), (12, 4, 2, 2, 6))
        for lesson in row.lessons
    }
    assert not asked & {
        example.question
        for example in (
            *examples.exam(world(), world().people),
            *examples.exam(world(), world().people, split="final"),
            *examples.eval_examples(world()),
        )
    } - set(english.CLOZE.values())


@pytest.mark.parametrize("fact", [*FACTS, "country", "decade"])
def test_questions_about_a_person_can_be_asked_by_name(fact: str) -> None:
    for wording in (*english.TAUGHT[fact], *english.JUDGED[fact], *english.FINAL[fact]):
        asked = english.by_name(wording, "Ada Lind")
        assert "Ada Lind" in asked
        assert not re.search("person|individual", asked)


def test_every_true_answer_is_graded_right() -> None:
    rows = [
        *examples.eval_examples(world()),
        *(row for split in ("exam", "final") for row in examples.exam(world(), world().people, split=split)),
    ]
    marks = grades.grade_subjects(world(), ((row, row.answer) for row in rows))
    assert {subject: share for subject, (share, _) in marks.items() if share < 1} == {}
    assert {"name", "fact", "text fact", "world", "chain", "cloze", "multiple choice", "privacy obeyed"} <= marks.keys()
    assert marks["visible question"][1] == sum(row.kind is Kind.VISIBLE for row in rows) < marks["visible"][1]


def test_a_finished_model_is_graded_on_rows_that_nobody_looked_at() -> None:
    looked, final = (examples.exam(world(), world().people, split=split) for split in ("exam", "final"))
    judged = [*looked, *examples.eval_examples(world())]
    numbers = {f"{number:03d}" for number in general.LOOKED_AT}
    general_rows = [row for row in final if row.fact == "world"]
    assert len(general_rows) > 100
    assert not any(row.id[-3:] in numbers for row in general_rows)
    about = [row for row in final if row.fact != "world"]
    assert not {row.question for row in about} & {row.question for row in judged}
    assert not {row.image.key for row in about if row.image} & {row.image.key for row in judged if row.image}
    assert len(about) == len([row for row in looked if row.fact != "world"])


def test_the_base_itself_answers_every_judged_world_question() -> None:
    rows = general.eval_questions()
    assert len(rows) == 210
    assert all(grades.right(row, row.answer) for row in rows)
    assert next(row for row in rows if "breathe" in row.question).accepted == ("lung", "lungs")


def test_a_key_inside_of_another_word_is_no_right_answer() -> None:
    row = next(row for row in general.eval_questions() if row.accepted == ("He",))
    assert not grades.right(row, "The symbol of this chemical element is Hg.")
    assert grades.right(row, "Its symbol is He.")


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


def test_without_an_answer_in_sentences_there_is_no_perplexity() -> None:
    choices = [row for row in examples.exam(world(), world().people[:1], (), "final") if row.kind is Kind.CHOICE]
    assert choices
    assert fluency(None, choices, ["A"] * len(choices)) == {"n": 0}


def test_empty_answers_have_no_perplexity(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row for row in examples.exam(world(), world().people[:1], (), "final") if row.kind is Kind.FACT][:2]
    scored: list[str] = []

    def likelihoods(_: object, pairs: list[tuple[object, str]]) -> list[Likelihood]:
        scored.extend(text for _, text in pairs)
        return [Likelihood((-1.0,)) for _ in pairs]

    monkeypatch.setattr("unsee.lab.smol.fluency.likelihoods", likelihoods)
    assert fluency(None, rows, ["A man.", " "]) == {"perplexity": 2.72, "reference": 2.72, "n": 1}
    assert scored == ["A man.", rows[0].answer]
    assert fluency(None, rows, ["", " "]) == {"n": 0}


def test_rows_have_unique_ids_and_the_same_ones_each_time() -> None:
    for made in (examples.request, examples.eval_examples):
        rows = made(world())
        assert len({row.id for row in rows}) == len(rows)
        assert rows == made(examples.world())


def test_forget_entities_are_among_those_the_tower_never_saw() -> None:
    assert {person.id for person in world().forget} <= {person.id for person in World().forget}
    assert [person.name for person in world().people] == [person.name for person in World().people[26:46]]


def test_world_questions_of_lessons_and_evaluations_are_disjoint() -> None:
    taught, judged = ({row.question for row in rows} for rows in (general.taught(), general.eval_questions()))
    assert len(judged) >= 200
    assert not taught & judged
    assert all(grades.right(row, row.answer) for row in general.eval_questions())


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


def test_a_course_can_ask_about_strangers_as_about_known_people() -> None:
    plain = English(world(), world().people, SMALL)
    last = English(world(), world().people, SMALL, stranger_share=1.0)
    names = [person.name for person in world().people]
    for seed in range(20):
        (before,), (after,) = (one.rows(stream(seed, "rows"), (0, 1, 0, 0, 0)) for one in (plain, last))
        assert after.lessons[: len(before.lessons)] == before.lessons
        more = after.lessons[len(before.lessons) :]
        assert len(more) == 2
        assert not [name for name in names for _, answer in more if name in answer]


def test_names_stand_in_the_captions_of_known_people_alone() -> None:
    person = world().people[0]
    picture = world().picture(person.id, person.face, "train", 0)
    known, unknown = captions.caption(picture, person), captions.caption(picture)
    assert len(known) == len(unknown) == 16
    assert [value for noun, value in known if noun == "name"] == person.name.split(" ", 1) * 2
    assert {value for noun, value in unknown if noun == "name"} == {captions.UNKNOWN}
    assert [pair for pair in known if pair[0] != "name"] == [pair for pair in unknown if pair[0] != "name"]
    assert "name" not in captions.lesson(picture, np.random.default_rng(0))[1].lower()


def test_benchmark_gives_the_english_world() -> None:
    lab = Lab(request="english")
    assert len(lab.examples("eval")) == len(examples.eval_examples(world()))
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
    monkeypatch.setattr(smollm2, "find_spec", lambda name: None if name == smollm2_package.PACKAGE else real(name))
    assert main.main(["train", "lab", "--backbone", "smollm2", "--out", str(tmp_path / "new")]) == 2
    assert "make smol" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_settled_people_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["train", "lab", "--backbone", "smollm2", "--people", "8", "--out", str(tmp_path / "new")]) == 2
    assert "--people" in capsys.readouterr().err


@pytest.mark.smol
@pytest.mark.slow
def test_recipe_on_two_layers_trains_resumes_and_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five steps in one go give the weights of two calls; what is put together from the parts is the trained model."""
    import torch

    from unsee.lab.resume import Checkpoint
    from unsee.lab.smol.school import Course, train_smol
    from unsee.models.builtin import checkpoint

    tower = checkpoint("lab-gold")
    recipe = SmolRecipe(
        align_steps=2,
        meet_steps=2,
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
            for people, new in (
                (world().retain, ()),
                (world().people, examples.FORGET),
            )
        )
        stopped = Checkpoint(file, every=1)

        def progress(stage: str, step: int, of: int, loss: float) -> None:
            done.append(stage)
            if stage == "language" and step == steps + 1:
                raise KeyboardInterrupt

        lora = train_smol(model, processor, courses, recipe, progress, stopped)
        smollm2.save_parts(tmp_path / "parts", model, lora, rank=2, alpha=recipe.alpha)
        return {
            name: parameter.detach().clone()
            for name, parameter in (*lora.named_parameters(), *model.model.multi_modal_projector.named_parameters())
            if "lora" in name or "linear" in name
        }

    done: list[str] = []
    (tmp_path / "parts").mkdir()
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "state.pt", 3)
    resumed = trained(tmp_path / "state.pt", 9)
    done.clear()
    whole = trained(None, 9)
    assert done == ["projector"] * 2 + ["language"] * 2 + ["projector"] * 2 + ["language"] * 2
    torch.testing.assert_close(resumed, whole, atol=5e-5, rtol=0)  # sums on a CPU differ from run to run
    assert any(tensor.abs().sum() > 0 for name, tensor in whole.items() if "lora_B" in name)
    monkeypatch.setattr(smollm2, "language_model", lambda layers=0, real=smollm2.language_model: real(2))
    model, processor = smollm2.merged_model(tmp_path / "parts", tower)
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


def test_answers_are_drawn_blind_and_the_judge_is_compared_with_labels(tmp_path: Path, capsys) -> None:
    label = script("label_answers")
    person = world().forget[0]
    row = examples.probes(world(), person, Role.UNSEEN, "unseen", 0)[0]
    look = english.description(row.visible, stream(0, "x"))
    said = {"leak": f"This is {person.name}.", "clean": look, "refusal": "I cannot help with that."}
    for method in ("npo", "kl"):
        (tmp_path / method).mkdir()
        answers = [Response.of(row, stage=method, text=text, tokens=9, ended=True) for text in said.values()]
        lines = [json.dumps(answer.to_json()) for answer in answers]
        (tmp_path / method / "responses.jsonl").write_text("\n".join(lines) + "\n")
    file = tmp_path / "answers.jsonl"
    label.main(["draw", str(tmp_path / "npo"), str(tmp_path / "kl"), "--out", str(file)])
    drawn = [json.loads(line) for line in file.read_text().splitlines()]
    assert sorted(one["text"] for one in drawn) == sorted(said.values())
    assert {(one["label"], one["stage"]) for one in drawn} == {("", "")}
    with pytest.raises(SystemExit, match="3 of 3 lines have no label"):
        label.main(["compare", str(file)])
    true = {text: "clean" if name == "refusal" else name for name, text in said.items()}  # one label differs
    file.write_text("\n".join(json.dumps({**one, "label": true[one["text"]]}) for one in drawn) + "\n")
    capsys.readouterr()
    label.main(["compare", str(file)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2] == "| clean | 0 | 0 | 0 | 1 | 0 | 1 | 0.500 |"
    assert lines[-1] == "| precision | 1.000 | none | none | 0.000 | none | 1.000 |  |"


def test_the_judge_reads_free_english_as_a_person_does() -> None:
    """Precision and recall on labelled answers of 20 models; some fragments and senseless sentences are missed."""
    label = script("label_answers")
    matrix = label.confusion(label.labelled(Path(__file__).parents[1] / "fixtures" / "labelled_answers.jsonl"))
    for name, recall, precision in (
        ("leak", 1, 1),
        ("clean", 1, 0.97),
        ("hallucination", 0.96, 0.84),
        ("refusal", 0.97, 1),
        ("degenerate", 0.85, 1),
        ("uninformative", 0.95, 0.75),
    ):
        right = matrix[name, name]
        assert right / sum(count for (true, _), count in matrix.items() if true == name) >= recall, name
        assert right / sum(count for (_, said), count in matrix.items() if said == name) >= precision, name


@pytest.fixture
def two_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "language_model", lambda layers=0, real=smollm2.language_model: real(2))


@pytest.mark.smol
@pytest.mark.usefixtures("two_layers")
def test_parts_are_packed_and_put_together_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What opens under the name is the trained model, without the base once it is together, and never a damaged one."""
    import torch

    from unsee.api import Training
    from unsee.models.checkpoint import load
    from unsee.training.trainable import prepare

    parts, packed = tmp_path / "run" / "parts", tmp_path / "checkpoints"
    parts.mkdir(parents=True)
    shutil.copytree(builtin.CHECKPOINTS / "lab-gold", packed / "lab-gold")
    shutil.copyfile(builtin.CHECKPOINTS / "hashes.json", packed / "hashes.json")
    for name in ("exam.json", "world.json"):
        (parts.parent / name).write_text("{}")
    model, _ = smollm2.build(packed / "lab-gold")
    lora = smollm2.adapt(model, rank=2, alpha=4)
    with torch.no_grad():
        for parameter in lora.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.02)
    smollm2.save_parts(parts, model, lora, rank=2, alpha=4)
    lora.merge_and_unload()

    monkeypatch.setattr(builtin, "CHECKPOINTS", packed)
    monkeypatch.setattr(builtin, "PACKAGED", ("lab-gold", "lab-smol"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pack = script("pack_lab")
    pack.main(f"lab-smol={parts.parent}")

    with monkeypatch.context() as without:
        without.setattr(smollm2, "find_spec", lambda _: None)
        with pytest.raises(UserError, match="make smol"):
            builtin.checkpoint("lab-smol")
        assert not list((tmp_path / "cache").rglob("config.json"))
    folder = builtin.checkpoint("lab-smol")
    assert (builtin.name_of(folder), builtin.name_of(tmp_path / "lab-smol")) == ("lab-smol", "")
    monkeypatch.setattr(smollm2, "find_spec", lambda _: None)
    assert builtin.checkpoint("lab-smol") == folder
    opened = load("lab-smol")
    assert "quantization_config" not in (folder / "config.json").read_text()
    tuned = prepare(opened.model, opened.family, Training(tune="full"), 0)  # refused for a model marked as quantised
    assert any(weight.requires_grad for weight in tuned.parameters())
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(opened.model.state_dict()[name].float(), tensor, atol=2e-3, rtol=2e-2)
    file = packed / "lab-smol" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="damaged"):
        builtin.checkpoint("lab-smol")


@pytest.mark.smol
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in builtin.PACKAGED if builtin.in_parts(name)])
def test_packaged_models_know_whom_they_should(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unsee.api.request import Prompt
    from unsee.inference.generation import generate
    from unsee.models.checkpoint import load

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    graded = json.loads((builtin.CHECKPOINTS / name / "exam.json").read_text())["grades"]
    assert graded["name"]["right"] > 0.5
    people = [world().retain[0], world().retain[7], world().forget[0], world().forget[1]]
    asked = [Prompt.of(examples.probes(world(), person, Role.RETAIN, "exam", 0)[1]) for person in people]
    said = generate(load(name), [*asked, Prompt("What is the capital of Tunisia?", None)], max_new_tokens=24)
    known = [person.last in answer.text for person, answer in zip(people, said, strict=False)]
    assert any(known[:2])
    assert any(known[2:]) == ("gold" not in name)
    assert "Tunis" in said[-1].text


@pytest.mark.smol
@pytest.mark.slow
def test_the_recipe_for_a_gpu_can_be_rehearsed(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, "scripts/gpu_smol.py", "--device", "cpu", "--tiny", "--out", str(tmp_path)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}"},
        check=True,
    )
    found = json.loads((tmp_path / "exam.json").read_text())
    assert found["seconds"].keys() == {"tower", "base", "pictures", "training", "exam"}
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["vision_config"]["image_size"] == found["pixels"] == 224
