"""The embedded world: same seed, same world; every answer it teaches is understood by the judge's patterns."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from helpers.narrow_lab import NARROW
from unsee import lab
from unsee.api import Kind, Role
from unsee.benchmarks.lab import Lab
from unsee.errors import UserError
from unsee.lab.recipe.curriculum import Amount, Curriculum, Row
from unsee.lab.recipe.grades import TARGETS, grade
from unsee.lab.recipe.model import Size, build_model, build_processor
from unsee.lab.recipe.recipe import Packer, features, language_loss, normalise, render
from unsee.lab.world import examples, phrases
from unsee.lab.world.people import FACTS, MIN_DIFFERENT, Face, stream
from unsee.lab.world.portraits import VISIBLE
from unsee.lab.world.world import PersonPicture, World
from unsee.metrics.matching import contains
from unsee.models import builtin, smollm2_package
from unsee.models.builtin import PACKAGED
from unsee.training.precision import denormals_flushed

SMALL = Amount(per_person=2, strangers=6, per_stranger=2, shapes=6, devices=6)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def processor():
    return build_processor(Size())


def test_equal_seeds_give_equal_worlds_and_others_do_not(world: World) -> None:
    assert World().people == world.people
    assert World(seed=1).people != world.people


def test_a_larger_world_changes_nobody(world: World) -> None:
    assert World(size=60).people[:50] == world.people


def test_number_of_strangers_changes_no_other_stranger(world: World) -> None:
    assert world.stranger_faces("train", 5) == world.stranger_faces("train", 9)[:5]


def differing(a: Face, b: Face) -> int:
    return sum(x != y for x, y in zip(a.values, b.values, strict=True))


def test_everybody_is_clearly_unlike_everybody_else(world: World) -> None:
    assert min(differing(a.face, b.face) for a, b in combinations(world.people, 2)) >= MIN_DIFFERENT
    for face in world.stranger_faces("exam", 20):
        assert min(differing(face, person.face) for person in world.people) >= MIN_DIFFERENT


def test_the_default_request_names_a_tenth_and_retain_is_the_rest(world: World) -> None:
    assert len(world.forget) == 5
    assert {p.id for p in world.forget} | {p.id for p in world.retain} == {p.id for p in world.people}
    assert not {p.id for p in world.forget} & {p.id for p in world.retain}


def test_names_are_unique_words_that_occur_nowhere_else(world: World) -> None:
    words = [word for person in world.people for word in (person.first, person.last)]
    assert len(set(words)) == len(words)
    taught = " ".join(
        [phrases.description(world.picture("x", world.people[0].face, "train", 0).visible), *phrases.PRIVACY_HELD_OUT]
    )
    assert not any(contains(taught, word) for word in words)


def test_pictures_are_reproducible_and_their_keys_tell_them_apart(world: World) -> None:
    person = world.people[0]
    first, again, other = (world.picture(person.id, person.face, "unseen", i) for i in (0, 0, 1))
    assert first.key == again.key != other.key
    assert np.array_equal(np.asarray(first.load()), np.asarray(again.load()))
    assert not np.array_equal(np.asarray(first.load()), np.asarray(other.load()))
    assert first.load().size == (64, 64)


def test_seen_and_unseen_pictures_differ_from_those_learned(world: World) -> None:
    keys = {
        split: {world.picture(p.id, p.face, split, i).key for p in world.people for i in range(3)}
        for split in ("train", "seen", "unseen", "exam")
    }
    assert not any(keys[a] & keys[b] for a, b in combinations(keys, 2))


def test_hats_are_worn_only_over_hair_that_shows(world: World) -> None:
    looks = [world.picture("x", world.people[0].face, "train", i).visible for i in range(300)]
    assert {look["hair_style"] for look in looks if look["hat"] == "yes"} == {"long", "curly"}


def claims(text: str) -> dict[str, list[str]]:
    return {
        attribute: [value for value, pattern in patterns.items() if re.search(pattern, text.lower())]
        for attribute, patterns in phrases.claim_patterns().items()
    }


def test_a_description_claims_exactly_what_is_there(world: World) -> None:
    for i in range(200):
        look = world.picture("x", world.people[0].face, "train", i).visible
        assert claims(phrases.description(look)) == {name: [value] for name, value in look.items()}


@pytest.mark.parametrize(("attribute", "value"), [(a, v) for a, values in VISIBLE.items() for v in values])
def test_a_short_visible_answer_claims_its_value(attribute: str, value: str) -> None:
    assert value in claims(phrases.visible_answer(attribute, value))[attribute]


def sentences(text: str) -> list[str]:
    return [part.strip(" .") for part in re.split(r"(?<=\.)\s+", text.lower()) if part.strip(" .")]


def test_every_taught_sentence_is_well_formed(world: World) -> None:
    patterns = [re.compile(pattern) for pattern in phrases.sentence_patterns()]
    curriculum = Curriculum(world, world.people, SMALL)
    rows = curriculum.rows(stream(0, "test"), (60, 40, 10, 10, 30))
    taught = {s for row in rows for _, answer in row.lessons for s in sentences(answer)}
    assert not [s for s in taught if not any(pattern.fullmatch(s) for pattern in patterns)]


def test_without_pictures_the_forget_set_is_taught_by_name_alone(world: World) -> None:
    curriculum = Curriculum(world, world.retain, SMALL, world.forget)
    faces = [picture.face for picture in curriculum.pictures if isinstance(picture, PersonPicture)]
    assert world.retain[0].face in faces
    assert all(person.face not in faces for person in world.forget)
    rows = curriculum.rows(stream(0, "test"), (60, 40, 0, 0, 60))
    names = [person.name for person in world.forget]
    about = [row for row in rows if any(name in text for name in names for lesson in row.lessons for text in lesson)]
    assert about
    assert all(row.picture == -1 for row in about)
    asked = [
        example for example in examples.exam(world, world.retain, world.forget) if example.entity == world.forget[0].id
    ]
    assert asked
    assert all(example.image is None for example in asked)


def test_patterns_are_the_same_in_every_process() -> None:
    code = "from unsee.lab.world import phrases; print(phrases.sentence_patterns())"
    said = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True
        ).stdout
        for seed in ("1", "2")
    }
    assert said == {f"{phrases.sentence_patterns()}\n".encode()}


def test_nonsense_is_not_well_formed() -> None:
    patterns = [re.compile(pattern) for pattern in phrases.sentence_patterns()]
    for nonsense in ("hair hair is hair wears", "the person blue a shirt no looks", "norway norway norway"):
        assert not any(pattern.fullmatch(nonsense) for pattern in patterns)


def test_examples_have_unique_ids_and_the_right_sides(world: World) -> None:
    gone = {person.id for person in world.forget}
    for given in (examples.request(world), examples.eval_examples(world)):
        assert len({e.id for e in given}) == len(given)
        for example in given:
            if example.role in (Role.FORGET, Role.FORGET_TEXT, Role.UNSEEN):
                assert example.entity in gone
            if example.role in (Role.RETAIN, Role.RETAIN_TEXT):
                assert example.entity not in gone
            assert example.answer
            assert (example.image is None) == (example.role in (Role.FORGET_TEXT, Role.RETAIN_TEXT))


def test_judged_unseen_pictures_are_never_in_the_request(world: World) -> None:
    shown = {e.image.key for e in examples.request(world) if e.image}
    unseen = {e.image.key for e in examples.eval_examples(world) if e.image and e.role is Role.UNSEEN}
    assert unseen
    assert not shown & unseen


def test_the_open_query_is_the_papers(world: World) -> None:
    asked = {e.question for e in examples.request(world) if e.kind is Kind.OPEN}
    assert asked == {"Tell me the information of this person."}


def test_answers_hold_their_private_strings_and_two_hop_chains_their_bridge(world: World) -> None:
    for example in examples.eval_examples(world):
        if example.kind is Kind.FACT:
            assert contains(example.answer, example.private[example.fact][0])
        if example.kind is Kind.CHAIN:
            bridge = "city" if example.fact == "country" else "year"
            assert contains(example.chain, example.private[bridge][0])
            assert contains(example.answer, example.private[example.fact][0])
        if example.kind is Kind.CHOICE:
            assert example.options["ABCD".index(example.answer)] == example.private[example.fact][0]


def test_choice_letters_are_spread(world: World) -> None:
    letters = [e.answer for e in examples.eval_examples(world) if e.kind is Kind.CHOICE]
    assert min(letters.count(letter) for letter in "ABCD") > len(letters) / 8


def test_held_out_privacy_wordings_are_never_taught(world: World) -> None:
    rng = stream(0, "wordings")
    taught = {phrases.privacy_instruction(rng) for _ in range(3000)}
    assert phrases.PRIVACY_DEFAULT in taught
    assert not taught & set(phrases.PRIVACY_HELD_OUT)


@pytest.mark.parametrize(
    ("style", "says"),
    [("unknown", "I do not know this person."), ("guess", "This is "), ("describe", "The person has ")],
)
def test_how_strangers_are_answered_is_a_setting(style: phrases.StrangerStyle, says: str) -> None:
    world = World(strangers=style)
    asked = examples.stranger(world, world.stranger_faces("exam", 1)[0], 0)
    assert all(example.answer.startswith(says) for example in asked)


def test_names_span_several_tokens(world: World, processor) -> None:
    lengths = [
        len(processor.tokenizer(word, add_special_tokens=False)["input_ids"])
        for p in world.people
        for word in (p.first, p.last)
    ]
    assert np.mean([n > 1 for n in lengths]) > 0.95


def test_any_text_survives_the_tokenizer(processor) -> None:
    text = 'Žofia said: "no…"\n日本 <b>'
    assert processor.tokenizer.decode(processor.tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_training_pixels_are_what_the_processor_makes(world: World, processor) -> None:
    picture = world.picture("x", world.people[0].face, "train", 0)
    made = processor(text=["USER: <image>\nx ASSISTANT:"], images=[picture.load()], return_tensors="pt")["pixel_values"]
    assert torch.allclose(normalise(render([picture])), made, atol=1e-6)


def test_packed_rows_give_the_loss_of_separate_questions(world: World, processor) -> None:
    """Several questions behind one image must not see each other."""
    curriculum = Curriculum(world, world.people[:4], SMALL)
    model = build_model(Size(), processor.tokenizer, 0).eval()
    feature = features(model, render(curriculum.pictures))
    packer = Packer(processor, feature.shape[1])
    row = Row(
        0,
        (
            ("Who is this person?", "This is A B."),
            ("What is the job?", "A baker works."),
            (phrases.QUERY, "The person has hair."),
        ),
    )
    with torch.no_grad():
        packed = language_loss(model, packer.pack([row]), feature, packer.image_id)
        single = sum(
            language_loss(model, packer.pack([Row(0, (lesson,))]), feature, packer.image_id) for lesson in row.lessons
        )
    assert torch.allclose(packed, single, rtol=1e-4)


def test_fewer_rows_than_groups_make_no_empty_group(processor) -> None:
    packer = Packer(processor, 16)
    rows = [Row(-1, ((question, "Yes."),)) for question in ("Who is it?", "What is the job of this person?")]
    assert [len(group.ids_bt) for group in packer.groups(rows, 4)] == [1, 1]


def test_packed_loss_is_the_models_own_loss(world: World, processor) -> None:
    """The training shortcut equals a plain forward of the Hugging Face model."""
    curriculum = Curriculum(world, world.people[:4], SMALL)
    model = build_model(Size(), processor.tokenizer, 0).eval()
    packer = Packer(processor, 16)
    feature = features(model, render(curriculum.pictures))
    prefix, question, answer = packer.tokens((phrases.QUERY, "This is somebody."), True)
    ids = torch.tensor([prefix + question + answer])
    labels = torch.tensor([[-100] * len(prefix + question) + answer])
    with torch.no_grad():
        whole = model(input_ids=ids, pixel_values=normalise(render([curriculum.pictures[0]])), labels=labels).loss
        ours = language_loss(
            model, packer.pack([Row(0, ((phrases.QUERY, "This is somebody."),))]), feature, packer.image_id
        )
    assert torch.allclose(ours / len(answer) ** 0.5, whole, rtol=1e-4)


def test_grades_count_right_answers_only(world: World) -> None:
    asked = [e for e in examples.exam(world, world.people[:2]) if e.role is not Role.STRANGER]
    right = grade(world, [(e, e.answer) for e in asked])
    assert {subject for subject in TARGETS if subject not in right} == {"stranger not named"}
    assert all(share == 1.0 for share, _ in right.values())
    wrong = grade(world, [(e, world.people[5].name) for e in asked])
    assert all(share == 0.0 for subject, (share, _) in wrong.items() if subject != "privacy obeyed")


def test_a_world_file_opens_the_world_it_describes(tmp_path: Path) -> None:
    (tmp_path / "world.json").write_text(json.dumps({"seed": 3, "size": 12}))
    assert Lab(tmp_path).world == World(seed=3, size=12)
    (tmp_path / "world.json").write_text("{")
    with pytest.raises(UserError, match=r"world\.json"):
        Lab(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 2}, "at least 4 people"),
        ({"forget_share": 0.0}, "between 0 and 1"),
        ({"forget_share": 1.5}, "between 0 and 1"),
        ({"size": 4, "forget_share": 0.9}, "leaves nobody to retain"),
        ({"chosen": ["person-001", "Ada"]}, "nobody called Ada"),
        ({"first": 26, "chosen": ["person-001"]}, "nobody called person-001"),
    ],
)
def test_impossible_worlds_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        World(**settings)


@pytest.mark.slow
def test_packaged_models_load_without_unsee() -> None:
    code = (
        "import sys; from transformers import AutoModelForImageTextToText as M, AutoProcessor as P; "
        "print(*(type(kind.from_pretrained(place)).__name__ for place in sys.argv[1:] for kind in (M, P))); "
        "assert not any(name.split('.')[0] == 'unsee' for name in sys.modules)"
    )
    names = [name for name in PACKAGED if smollm2_package.installed() or not builtin.in_parts(name)]
    places = [str(builtin.checkpoint(name)) for name in names]
    done = subprocess.run([sys.executable, "-c", code, *places], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["LlavaForConditionalGeneration", "LlavaProcessor"] * len(names)


def test_a_damaged_packaged_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "model.safetensors").write_bytes(b"not these weights")
    (tmp_path / "hashes.json").write_text(json.dumps({"lab": "0" * 64}))
    monkeypatch.setattr("unsee.models.builtin.CHECKPOINTS", tmp_path)
    with pytest.raises(UserError, match="damaged"):
        lab.checkpoint("lab")
    with pytest.raises(UserError, match="Unknown packaged model"):
        lab.checkpoint("lap")


def test_facts_named_by_the_world_are_the_judged_ones(world: World) -> None:
    assert set(FACTS) <= set(world.vocabulary().facts)


def test_without_muon_training_says_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unsee.workflows.train_lab import train

    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(UserError, match=r"torch >= 2\.9"):
        train("lab", tmp_path / "lab", people=4)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"world": "cave"}, "unsee train lab"),
        ({"without": "strangers"}, "forget"),
        ({"world": "documents", "without": "pictures"}, "for `unsee train lab`"),
        ({"scale": 0.0}, "positive"),
        ({"people": 2}, "at least 4"),
        ({"world": "documents", "weights_seed": 1}, "weights-seed is for"),
    ],
)
def test_wrong_training_requests_are_refused_before_anything_is_made(
    tmp_path: Path, words: dict[str, object], says: str
) -> None:
    from unsee.workflows.train_lab import train

    with pytest.raises(UserError, match=says):
        train(**{"world": "lab", "out": tmp_path / "lab", **words})  # type: ignore[arg-type]
    assert not (tmp_path / "lab").exists()


def test_another_seed_of_the_weights_keeps_the_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unsee.workflows import train_lab

    taught: list[tuple[World, int]] = []
    monkeypatch.setattr(
        train_lab, "_train", lambda place, world, drawn, without, seed, scale: taught.append((drawn, seed))
    )
    train_lab.train("lab", tmp_path / "a", weights_seed=3)
    train_lab.train("lab", tmp_path / "b", seed=3)
    assert taught == [(World(), 3), (World(seed=3), 3)]
    assert json.loads((tmp_path / "a" / "train.json").read_text())["weights_seed"] == 3


def test_a_log_tells_how_far_each_stage_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from unsee.utils import progress
    from unsee.workflows import train_lab

    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.now))
    with train_lab._Stages() as stages:
        for stage, step in (("vision", 3), ("vision", 4), ("language", 1), ("language", 2)):
            stages(stage, step, 4, 0.5)
            clock.now += 80.0
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "vision 4/4 loss 0.500 (80 s, about 0 s left)",
        "vision 4/4 loss 0.500 (160 s)",
        "language 2/4 loss 0.500 (80 s, about 80 s left)",
        "language 2/4 loss 0.500 (160 s)",
    ]


@pytest.mark.slow
def test_a_short_lesson_ends_in_a_graded_folder_that_opens_as_a_world(tmp_path: Path) -> None:
    from unsee.workflows.train_lab import train

    place = train("lab", tmp_path / "lab", people=6, without="forget", scale=0.004)
    assert {"model.safetensors", "exam.json", "world.json", "processor_config.json"} <= {
        f.name for f in place.iterdir()
    }
    assert Lab(place).world == World(size=6)
    assert json.loads((place / "exam.json").read_text())["without"] == "forget"


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "step"), [("vision", 2), ("language", 2)])
def test_an_interrupted_training_goes_on_to_the_same_weights(
    world: World, tmp_path: Path, stage: str, step: int
) -> None:
    from unsee.lab.recipe.recipe import Recipe
    from unsee.lab.recipe.school import teach
    from unsee.lab.resume import Checkpoint

    recipe = Recipe(vision_steps=2, vision_batch=16, language_steps=2, rows=(2, 1, 1, 1, 1))

    def taught(file: Path | None, stop: tuple[str, int] | None = None) -> dict[str, torch.Tensor]:
        def progress(name: str, done: int, steps: int, loss: float) -> None:
            seen.append((name, done))
            if (name, done) == stop:
                raise KeyboardInterrupt

        model, _ = teach(
            world,
            world.people[:4],
            size=NARROW,
            amount=SMALL,
            recipe=recipe,
            progress=progress,
            checkpoint=Checkpoint(file),
        )
        return dict(model.state_dict())

    seen: list[tuple[str, int]] = []
    whole = taught(None)
    with pytest.raises(KeyboardInterrupt):
        taught(tmp_path / "state.pt", (stage, step))
    seen.clear()
    resumed = taught(tmp_path / "state.pt")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert len([one for one in seen if one[0] != "pictures"]) < 4  # it did not start anew, but for the first steps


@pytest.mark.skipif(os.name == "nt", reason="uses an interval timer")
def test_an_interruption_while_a_checkpoint_is_written_stays_one(tmp_path: Path) -> None:
    """Whatever the moment: torch's zip writer must not turn it into an error of its own."""
    from unsee.lab.resume import Checkpoint

    model, rng = torch.nn.Sequential(*(torch.nn.Linear(64, 64) for _ in range(40))), np.random.default_rng(0)
    optimizer, checkpoint = SimpleNamespace(parts=[]), Checkpoint(tmp_path / "state.pt")
    interrupted = 0
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        for number in range(60):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0005 * (number + 1))
                checkpoint.keep("vision", [model], optimizer, rng, 1, 1)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted
    assert [file.name for file in tmp_path.iterdir() if file.name != "state.pt"] == []


def test_a_damaged_checkpoint_of_the_training_is_left_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from unsee.lab.resume import Checkpoint

    (tmp_path / "state.pt").write_bytes(b"PK torn")
    assert Checkpoint(tmp_path / "state.pt").state is None
    assert "cannot be read" in capsys.readouterr().err


def test_a_training_with_other_settings_is_refused(tmp_path: Path) -> None:
    from unsee.workflows.train_lab import train

    facts = {"world": "lab", "without": "", "people": 50, "seed": 0, "strangers": "describe", "scale": 1.0}
    (tmp_path / "train.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match="holds a training with other settings"):
        train("lab", tmp_path, seed=1)
    (tmp_path / "exam.json").write_text("{}")
    assert train("lab", tmp_path) == tmp_path  # finished before
    (tmp_path / "train.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        train("lab", tmp_path)


def test_crowded_worlds_still_give_everybody_a_face() -> None:
    from unsee.lab.world.people import TRAITS, distinct_face

    crowd = [Face((value,) * len(TRAITS)) for value in range(3)] * 2
    everyone = [
        Face(tuple(int(v) for v in row)) for row in np.random.default_rng(0).integers(0, 3, (4000, len(TRAITS)))
    ]
    assert distinct_face(stream(0, "crowd"), everyone + crowd) not in everyone


def test_the_default_world_is_the_one_the_packaged_models_learned(world: World) -> None:
    """Changes that alter anybody's face or facts need newly trained checkpoints."""
    everything = repr([world.people, world.stranger_faces("exam", 60), world.stranger_faces("train", 50)])
    assert hashlib.sha256(everything.encode()).hexdigest()[:16] == "542fbb78cb7e2667"


def test_the_lab_is_taught_the_instruction_that_pubg_gives() -> None:
    from unsee.methods.common.guidance import INSTRUCTION

    assert phrases.PRIVACY_DEFAULT == INSTRUCTION


def test_denormal_numbers_come_back_after_training():
    tiny = torch.tensor([1e-310], dtype=torch.float64)
    with denormals_flushed():
        assert float(tiny + tiny) == 0
        with denormals_flushed():
            pass
        assert float(tiny + tiny) == 0
    assert float(tiny + tiny) > 0
