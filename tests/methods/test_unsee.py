"""Shrink and distil: every part against its formula, worked out again."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from torch.nn import Linear

from unsee.api import Kind, Role
from unsee.errors import UserError
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import collate
from unsee.methods.unsee.forms import other_forms
from unsee.methods.unsee.method import Unsee
from unsee.methods.unsee.student import shrink, xavier
from unsee.methods.unsee.teacher import (
    CONSONANTS,
    VOWELS,
    _about_nobody,
    invent_name,
    kept_targets,
    lessons,
    mixed_logprobs,
)
from unsee.metrics.scripts import scripts
from unsee.testing.methods import session_at
from unsee.testing.tiny import person
from unsee.training.recording import recording
from unsee.training.trainable import trainable
from unsee.utils import terminal
from unsee.utils.seeds import seed_of

TRIAL = Unsee.trial.settings


def asked_by_name(session):
    """Return the session with questions about Ada by name, and a stranger in two looks."""
    ada = person("ada", Role.FORGET_TEXT)
    text = replace(ada, id="by-name", question="What does Ada Lovell do?", answer="baker", image=None, kind=Kind.FACT)
    strangers = [
        replace(person("dan", Role.STRANGER, mark), id=f"s{mark}", entity="", visible={"hat": hat}, private={})
        for mark, hat in ((0, "red"), (8, "blue"))
    ]
    forget = [replace(row, visible={"hat": "blue"}) for row in session.examples[Role.FORGET]]
    session.examples = {
        **session.examples, Role.FORGET: forget, Role.FORGET_TEXT: [text], Role.STRANGER: strangers,
    }  # fmt: skip
    return session


def test_mixture_is_of_laws_not_of_logits():
    first, second = torch.tensor([[[0.0, 2.0]]]), torch.tensor([[[5.0, 5.0]]])
    p = first.softmax(-1)
    assert torch.allclose(mixed_logprobs(first, second, 0.25).exp(), 0.75 * p + 0.25 * 0.5)


def test_invented_names_keep_their_shape():
    for seed in range(5):
        name = invent_name("Ada O'Lovell 3", seed)
        assert [letter.isupper() for letter in name] == [letter.isupper() for letter in "Ada O'Lovell 3"]
        for made, letter in zip(name.lower(), "ada o'lovell 3", strict=True):
            kind = next((letters for letters in (VOWELS, CONSONANTS) if letter in letters), letter)
            assert made in kind
            assert (made == letter) == (kind == letter)


@pytest.mark.parametrize(
    "name",
    [
        "Павел Иванов", "王伟", "山田 太郎", "やまだ はなこ", "محمد علي", "דוד כהן", "Γιώργος", "김민준", "प्रिया शर्मा",
        "José Ñúñez", "Łukasz Żak", "Zoë Weiß", "Nguyễn Văn Đức", "Ø", "王 Ada", "Ada Иванова",
    ],
)  # fmt: skip
def test_no_word_of_a_name_survives_in_any_script(name):
    for seed in range(20):
        made = invent_name(name, seed)
        assert not set(made.split()) & set(name.split())
        assert scripts([made]) == scripts([name])
        assert [letter.isupper() for letter in made] == [letter.isupper() for letter in name]


def test_invented_names_are_those_of_earlier_versions():
    assert (invent_name("Ada Byron", 7), invent_name("Marta Keller", 7)) == ("Ike Tpnig", "Hobho Poghog")


def test_a_name_without_letters_to_exchange_is_refused():
    with pytest.raises(UserError, match="'4711' has a word without letters"):
        invent_name("4711", 0)


def test_every_spelling_of_the_name_is_hidden_and_questions_without_a_lesson_are_counted(tmp_path):
    session = asked_by_name(session_at(tmp_path))
    known = session.examples[Role.FORGET_TEXT][0]
    names = ("Ada", "Ada Lovell", "Lovell")
    asked = replace(
        known, question="Ada Lovell, or Lovell: what does Ada do?", private={**known.private, "name": names}
    )
    unnamed = replace(known, id="unnamed", question="What does she do?")
    session.examples = {**session.examples, Role.FORGET_TEXT: [asked, unnamed]}
    taught = lessons(session, "person", "Say nothing.", 2, 1.0)
    heard = {lesson.guided.example.question for lesson in taught if lesson.student.example.image is None}
    assert len(heard) == 1
    assert not any(name in question for question in heard for name in names)
    assert session.notes["by_name"] == {"questions": 2, "without_lesson": 1}


@pytest.mark.parametrize(
    ("question", "left"),
    [
        ("Does Art like Artists?", "Does {} like Artists?"),
        ("Does ART like artists?", "Does {} like artists?"),
        ("Does Art like art?", "Does {} like art?"),
    ],
)
def test_only_whole_words_are_a_name(question, left):
    example = replace(person("ada", Role.FORGET_TEXT), question=question, private={"name": ("Art",)})
    asked = _about_nobody(example, 3)
    assert re.fullmatch(re.escape(left).replace(r"\{\}", r"(\w+)"), asked)[1].casefold() != "art"


def test_a_cloze_begins_at_the_value_and_not_inside_another_word():
    row = replace(
        person("ada", Role.RETAIN), fact="city", answer="Ada Romero is from Rome.", private={"city": ("Rome",)}
    )
    (cloze,) = other_forms([row], ["cloze"], 0)
    assert (cloze.question, cloze.answer) == ("Complete the sentence: Ada Romero is from", "Rome.")


def test_lessons_by_name_are_repeated_up_to_their_share(tmp_path):
    session = asked_by_name(session_at(tmp_path / "a"))
    Unsee(**TRIAL).unlearn(session)
    by_name = session.notes["by_name"]["questions"] * TRIAL["rollouts"]
    by_picture = session.notes["lessons"] - by_name
    session = asked_by_name(session_at(tmp_path / "b"))
    Unsee(**TRIAL, name_share=0.5).unlearn(session)
    assert by_name < by_picture
    assert session.notes["lessons"] == 2 * by_picture
    with pytest.raises(UserError, match=r"method\.name_share"):
        Unsee(name_share=1.0)


def test_strangers_need_training_rows_and_their_lessons_are_counted(tmp_path):
    session = asked_by_name(session_at(tmp_path / "a"))
    Unsee(**TRIAL, strangers=0.3).unlearn(session)
    pictures = session.notes["lessons"] - session.notes["by_name"]["questions"] * TRIAL["rollouts"]
    assert session.notes["strangers"] == {"share": 0.3, "lessons": pictures}
    session = session_at(tmp_path / "b")
    session.examples = {**session.examples, Role.STRANGER: ()}
    with pytest.raises(UserError, match=r"method\.strangers=0\.3 needs pictures of strangers"):
        Unsee(**TRIAL, strangers=0.3).unlearn(session)


def test_full_tuning_shrinks_matrices_and_leaves_the_rest(tmp_path):
    session = session_at(tmp_path, "full")
    before = {name: weight.detach().clone() for name, weight in trainable(session.model).items()}
    count = shrink(session.model, session.training, 0.6, 0.1, "mlp", 7)
    changed = {name for name, weight in trainable(session.model).items() if not torch.equal(weight, before[name])}
    assert changed == {name for name in before if ".mlp." in name}
    assert count == sum(before[name].numel() for name in changed)
    for name in changed:
        weight = before[name]
        noise = xavier(weight, seed_of(7, "noise", name))
        bound = (6 / sum(weight.shape)) ** 0.5
        assert noise.abs().max() <= bound
        assert noise.std() == pytest.approx(bound / 3**0.5, rel=0.1)
        now = session.model.get_parameter(name)
        assert torch.allclose(now, 0.4 * weight + 0.6 * 0.1 * noise)
    shrink(session.model, session.training, 0.6, 0.1, "", 7)
    matrices = {
        name for name in before if isinstance(session.model.get_submodule(name.rpartition(".")[0]), Linear)
    }  # fmt: skip
    now = trainable(session.model)
    assert {name for name in before if not torch.equal(now[name], before[name])} == matrices


def test_adapters_start_as_minus_the_largest_components(tmp_path):
    session = session_at(tmp_path, "lora", rank=4, alpha=12)
    shrink(session.model, session.training, 0.5, 0.0, "", 0)
    layer = next(module for name, module in session.model.named_modules() if name.endswith("layers.0.mlp.up_proj"))
    base = layer.base_layer.weight.detach()
    left, size, right = torch.linalg.svd(base)
    wanted = -0.5 * (left[:, :4] * size[:4]) @ right[:4]
    assert torch.allclose(layer.get_delta_weight("default"), wanted, atol=1e-5)


def test_lessons_hide_the_name_from_the_teacher_and_choose_the_stranger_who_looks_alike(tmp_path):
    session = asked_by_name(session_at(tmp_path))
    taught = lessons(session, "person", "Say nothing.", 2, 1.0)
    pictures = [lesson for lesson in taught if lesson.student.example.image is not None]
    named = [lesson for lesson in taught if lesson.student.example.image is None]
    assert {lesson.guided.instruction for lesson in pictures} == {"Say nothing."}
    assert {lesson.student.instruction for lesson in taught} == {""}
    blue = session.examples[Role.STRANGER][1].image
    assert {lesson.stranger.example.image for lesson in pictures} == {blue}
    assert {lesson.student.example.id for lesson in named} == {"by-name"}
    for lesson in named:
        assert "Ada Lovell" in lesson.student.example.question
        assert "Ada" not in lesson.guided.example.question
        assert lesson.student.token_ids == lesson.guided.token_ids
    assert all(lesson.student.example.image for lesson in lessons(session, "picture", "Say nothing.", 2, 1.0))


def test_the_scope_decides_whether_answers_by_name_are_kept(tmp_path):
    kept = {}
    for scope in ("person", "picture"):
        session = asked_by_name(session_at(tmp_path / scope))
        with recording() as calls:
            Unsee(**TRIAL, scope=scope).unlearn(session)
        kept[scope] = {target.example.id for target in calls[0].retain}
        assert session.notes["promise"] == scope
    assert kept["picture"] - kept["person"] == {"by-name"}


@pytest.mark.parametrize("divergence", ["forward", "reverse", "js"])
def test_loss_is_the_divergence_from_the_instructed_original(tmp_path, divergence):
    session = asked_by_name(session_at(tmp_path))
    settings = {**TRIAL, "shrink": 0.0, "divergence": divergence, "strangers": 0.3, "forget_weight": 2.0}
    with recording() as calls:
        Unsee(**settings).unlearn(session)
    taught = lessons(session, "person", Unsee().instruction, 2, 1.0)
    batch = collate(session, calls[0].forget[:3])
    parts = [
        {key: value.detach() for key, value in part.items()}
        for part in calls[0].objective(batch, collate(session, calls[0].retain[:3]))
    ]
    assert float(parts[1]["retain_gap"]) == pytest.approx(0.0, abs=1e-6)  # the student is still the original
    gaps = []
    for target in batch.targets:
        lesson = next(lesson for lesson in taught if lesson.student.key == target.key)
        p, strange, q = (
            answer_logits(session.model, collate(session, [one]))[0][0].detach().softmax(-1)
            for one in (lesson.guided, lesson.stranger, target)
        )
        p = 0.7 * p + 0.3 * strange
        m = (p + q) / 2
        gaps.append(
            {
                "forward": (p * (p / q).log()).sum(-1),
                "reverse": (q * (q / p).log()).sum(-1),
                "js": ((p * (p / m).log()).sum(-1) + (q * (q / m).log()).sum(-1)) / 2,
            }[divergence].mean()
        )
    assert float(parts[0]["forget_gap"]) == pytest.approx(float(sum(gaps) / 3), rel=1e-3)
    assert float(parts[0]["loss"]) == pytest.approx(2 * float(sum(gaps) / 3), rel=1e-3)


def test_it_stops_by_what_is_kept_and_not_by_forgetting(tmp_path):
    session = session_at(tmp_path, "full", stop="forgotten", check_every=1)
    Unsee(**TRIAL, kept=100.0).unlearn(session)
    assert session.notes["steps"] == 1
    assert "KeptStop" in session.notes["stop_reason"]
    session = session_at(tmp_path / "all", "full", stop="forgotten", check_every=1)
    Unsee(**TRIAL, kept=1e-9).unlearn(session)
    assert session.notes["stop_reason"] == "all steps done"
    assert session.notes["kept_gap"] > 0


def test_without_retain_rows_nothing_is_shrunk(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(terminal, "_NOTED", set())
    session = session_at(tmp_path, "full")
    session.examples = {Role.FORGET: session.examples[Role.FORGET]}
    Unsee(**TRIAL).unlearn(session)
    assert (session.notes["shrink"], session.notes["shrunk"], session.notes["steps"]) == (0.0, 0, 2)
    assert "method.shrink has no effect: without retain rows" in capsys.readouterr().err


def test_values_that_no_run_could_use_are_refused(tmp_path):
    for wrong in ({"shrink": 1.5}, {"strangers": -0.1}, {"noise": -1.0}, {"rollouts": 0}, {"located": "("}):
        with pytest.raises(UserError, match=f"method.{next(iter(wrong))}"):
            Unsee(**wrong)
    with pytest.raises(UserError, match="fits no trained matrix"):
        Unsee(**TRIAL, located="nowhere").unlearn(session_at(tmp_path))


def told(entity, job):
    """A kept row that tells somebody's job."""
    row = replace(person("ada", Role.RETAIN), id=entity, entity=entity, kind=Kind.FACT, fact="job")
    return replace(row, answer=f"This person works as a {job}.", private={"name": (entity,), "job": (job,)})


def test_other_forms_ask_for_what_the_answer_tells():
    rows = [told("ada", "baker"), told("bo", "pilot"), told("cy", "diver"), told("di", "judge")]
    cloze, *_ = other_forms(rows, ("cloze",), 0)
    assert (cloze.kind, cloze.question, cloze.answer) == (
        Kind.CLOZE, "Complete the sentence: This person works as a", "baker.",
    )  # fmt: skip
    for row in other_forms(rows, ("choice",), 0):
        right = row.private["job"][0]
        letter = row.answer[0]
        assert row.options["ABCD".index(letter)] == right
        assert sorted(row.options) == ["baker", "diver", "judge", "pilot"]
        assert f"{letter}. {right}" in row.question
    letters = {other_forms(rows, ("choice",), seed)[0].answer for seed in range(12)}
    assert len(letters) > 1, "the place of the right option must vary"


def test_other_forms_need_a_told_fact_and_enough_options():
    rows = [told("ada", "baker"), told("bo", "pilot")]
    assert other_forms(rows, ("choice",), 0) == []
    assert other_forms([replace(rows[0], answer="I do not know.")], ("cloze", "choice"), 0) == []
    assert other_forms([replace(rows[0], answer="baker")], ("cloze",), 0) == []  # nothing stands before it
    assert len({row.id for row in other_forms(rows, ("cloze",), 0)}) == 2


def test_the_retain_set_is_trained_on_in_other_forms_too(tmp_path):
    session = session_at(tmp_path, "full")
    plain = kept_targets(session, "person")
    session.examples = {**session.examples, Role.RETAIN: [told("bo", "pilot")]}
    kinds = {target.example.kind for target in kept_targets(session, "person", ("cloze",))}
    assert Kind.CLOZE in kinds
    assert Kind.CLOZE not in {target.example.kind for target in plain}


@pytest.mark.parametrize(
    ("training", "message"),
    [({"adapter": "runs/x"}, "cannot go on from an adapter"), ({"guard": "collapse"}, "which unsee has shrunk")],
)
def test_what_shrinking_would_defeat_is_refused(tmp_path, training, message):
    session = session_at(tmp_path)
    session.training = replace(session.training, **training)
    with pytest.raises(UserError, match=message):
        Unsee().unlearn(session)
    Unsee(shrink=0.0)._require_usable(session)


def test_a_stop_by_what_is_kept_is_refused_beside_averaged_weights(tmp_path):
    session = session_at(tmp_path)
    session.training = replace(session.training, robust="averaging")
    with pytest.raises(UserError, match="returns their mean"):
        Unsee(kept=0.1).unlearn(session)
    Unsee()._require_usable(session)
