"""SIU (arXiv 2405.12523), and the defects of the released code (docs/defects.md 2, 3, 5, 6, 7, 14, 15, 22, 23, 25)."""

# ruff: noqa: RUF001 - scripts other than Latin
from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from unsee.api import Example, Kind, Role, Training, registry
from unsee.api.fast_paths import engine_named
from unsee.api.request import Target
from unsee.benchmarks.folder import Folder
from unsee.errors import TrainingError, UserError
from unsee.inference.answer_logits import answer_logits, answer_logprob
from unsee.inference.batching import collate, target_ids
from unsee.inference.encoder import encoder
from unsee.inference.token_offsets import answer_offsets
from unsee.lab.world import examples as lab_examples
from unsee.lab.world.world import World
from unsee.losses import IGNORE, answer_nll, dual_masked_kl, released_masked_cross, token_kl
from unsee.methods.common.reference_model import StartLogits
from unsee.methods.siu import targets as siu_targets
from unsee.methods.siu.method import SIU, _matches, _unexpanded
from unsee.methods.siu.names import FIRST, name_tokens
from unsee.methods.siu.targets import KeptTokens, Row, build_siu_rows
from unsee.metrics.matching import leaked_facts
from unsee.models.families.llava import Llava
from unsee.testing.tiny import PEOPLE, Drawn, tiny_processor, tiny_session
from unsee.training.recording import recording
from unsee.training.trainer import prepare
from unsee.utils import terminal

Recipe = partial(siu_targets.Recipe, substitute="listed")


def session_at(out, tune="lora", **settings):
    training = Training(**{"tune": tune, "lr": 1e-3, "stop": "never", "max_new_tokens": 5, **settings})
    session = tiny_session(out, training=training)
    session.model = prepare(session.model, session.family, training, session.seed)
    return session


def one_person(session):
    """Leave a session with one concept to forget."""
    forget = [example for example in session.of(Role.FORGET) if example.entity == "ada"]
    session.examples = {**session.examples, Role.FORGET: forget}
    return session


def rows_of(session, number, **recipe):
    return [row for row in build_siu_rows(session, Recipe(**recipe))[1] if row.number == number]


# The dual-masked KL


@pytest.fixture
def case():
    """Teacher and student logits of two rows, four positions, six entries; two tokens and one entry are masked."""
    torch.manual_seed(0)
    kept = torch.tensor([[False, False, True, True], [True, False, True, True]])
    return torch.randn(2, 4, 6), torch.randn(2, 4, 6), kept, torch.tensor([1.0, 1, 0, 1, 1, 1])


def test_dual_masked_kl_is_the_formula_written_by_hand(case):
    teacher, student, kept, allowed = case
    total = count = 0.0
    for b in range(2):
        for t in range(4):
            if kept[b, t]:
                p, q = teacher[b, t].softmax(-1).tolist(), student[b, t].softmax(-1).tolist()
                total += sum(p[v] * math.log(p[v] / q[v]) for v in range(6) if allowed[v])
                count += 1
    assert float(dual_masked_kl(teacher, student, kept, allowed)) == pytest.approx(total / count, rel=1e-5)
    assert float(dual_masked_kl(teacher, student, kept, allowed, "sum")) == pytest.approx(total, rel=1e-5)
    plain = token_kl(teacher, student)[kept].mean()
    assert float(dual_masked_kl(teacher, student, kept, torch.ones(6))) == pytest.approx(float(plain), rel=1e-5)


def test_masked_positions_have_no_gradient_and_none_kept_is_zero(case):
    teacher, student, kept, allowed = case
    student.requires_grad_()
    dual_masked_kl(teacher, student, kept, allowed).backward()
    assert student.grad is not None
    assert not student.grad[~kept].any()
    assert student.grad[kept].abs().sum(-1).all()
    assert dual_masked_kl(teacher, student, torch.zeros_like(kept), allowed).item() == 0.0


def test_gradient_of_a_name_entry_only_lowers_it(case):
    """d/dz_j = p_theta(j) S for a name id, never with the -p_ref(j) that would raise it (SIU, arXiv 2405.12523)."""
    teacher, student, kept, allowed = case
    student.requires_grad_()
    dual_masked_kl(teacher, student, kept, allowed, "sum").backward()
    p_ref, p_theta = teacher.softmax(-1), student.softmax(-1).detach()
    s = (allowed * p_ref).sum(-1, keepdim=True)
    expected = (p_theta * s - allowed * p_ref) * kept.unsqueeze(-1)
    assert torch.allclose(student.grad, expected, atol=1e-6)
    assert (student.grad[kept][:, 2] > 0).all()
    at_start = teacher.clone().requires_grad_()
    dual_masked_kl(teacher, at_start, kept, allowed).backward()
    stepped = (teacher - 0.1 * at_start.grad).softmax(-1)
    assert (stepped[kept][:, 2] < p_ref[kept][:, 2]).all()


def test_equal_models_give_zero_and_without_vocabulary_mask_no_gradient(case):
    teacher, _, kept, allowed = case
    student = teacher.clone().requires_grad_()
    loss = dual_masked_kl(teacher, student, kept, allowed)
    assert loss.item() == pytest.approx(0.0, abs=1e-7)
    loss.backward()
    assert student.grad.abs().sum() > 0
    student.grad = None
    dual_masked_kl(teacher, student, kept, torch.ones(6)).backward()
    assert student.grad.abs().max() < 1e-6


def test_the_value_may_be_negative_and_is_not_clamped():
    teacher, student = torch.tensor([[[0.0, 3.0]]]), torch.tensor([[[3.0, 0.0]]])
    kept, allowed = torch.ones(1, 1, dtype=torch.bool), torch.tensor([1.0, 0.0])
    assert float(dual_masked_kl(teacher, student, kept, allowed)) < 0


def test_mean_does_not_depend_on_vocabulary_or_length_and_the_released_one_does(case):
    """Guards the scale: the released normaliser is kept tokens times vocabulary (docs/defects.md 22, 23, 25)."""
    teacher, student, kept, allowed = case
    padded = [torch.cat([x, torch.full((2, 4, 94), -1e4)], -1) for x in (teacher, student)]
    wide = torch.cat([allowed, torch.ones(94)])
    value = float(dual_masked_kl(teacher, student, kept, allowed))
    assert float(dual_masked_kl(*padded, kept, wide)) == pytest.approx(value, rel=1e-5)
    twice = [torch.cat([x, x], 1) for x in (teacher, student)]
    assert float(dual_masked_kl(*twice, torch.cat([kept, kept], 1), allowed)) == pytest.approx(value, rel=1e-5)
    inert = float(released_masked_cross(teacher, student, kept, allowed))
    assert float(released_masked_cross(*padded, kept, wide)) == pytest.approx(inert * 6 / 100, rel=1e-4)


def test_released_term_is_the_cross_part_divided_by_tokens_times_vocabulary(case):
    teacher, student, kept, allowed = case
    p, q = teacher.softmax(-1) * allowed, student.softmax(-1) * allowed
    by_hand = sum(float(-(p[b, t] * (q[b, t] + 1e-12).log()).sum()) for b in range(2) for t in range(4) if kept[b, t])
    assert float(released_masked_cross(teacher, student, kept, allowed)) == pytest.approx(by_hand / (5 * 6), rel=1e-5)


# The rows


def test_four_rows_of_each_target_from_one_image(tmp_path):
    session = session_at(tmp_path)
    concepts, rows = build_siu_rows(session, Recipe())
    assert [concept.entity for concept in concepts] == ["ada", "bo"]
    for concept in concepts:
        mine = [row for row in rows if f"/{concept.entity}/" in row.target.example.id]
        assert [row.number for row in mine] == [1] * 4 + [2] * 4 + [3] * 2 + [4] * 4
        shown = {row.target.example.image.key for row in mine if row.target.example.image}
        assert shown == {concept.shown[0].image.key}
        assert all((row.target.example.image is None) == (row.number > 2) for row in mine)
    assert len({row.target.example.id for row in rows}) == len(rows)


def test_target_1_names_the_substitute_and_gives_nothing_away(tmp_path):
    """The secret is never what is trained on (docs/defects.md 1)."""
    session = session_at(tmp_path)
    concepts, rows = build_siu_rows(session, Recipe())
    for row in rows:
        if row.number == 1:
            concept = next(one for one in concepts if one.entity == row.target.example.entity)
            answer = row.target.example.answer
            name, job, city, _ = PEOPLE[concept.entity]
            assert concept.substitute in answer
            assert not leaked_facts(answer, {"name": (name, name.split()[1]), "job": (job,), "city": (city,)})
            assert [answer[start:end] for start, end in row.spans] == [concept.substitute]
    questions = [row.target.example.question for row in rows_of(one_person(session), 1)]
    assert questions[:2] == ["Who is this?", "Tell me the information of this person."]
    assert len(set(questions)) == 4


def test_target_1_keeps_what_is_not_private(tmp_path):
    session = one_person(session_at(tmp_path))
    first = session.of(Role.FORGET)[0]
    told = replace(first, answer="This is Ada Lovell, a baker. Lovell is a baker! The person smiles.")
    session.examples = {**session.examples, Role.FORGET: [told]}
    row = next(row for row in rows_of(session, 1) if row.target.example.question == told.question)
    assert row.target.example.answer == "This is Jacob Campbell. The person smiles."
    short = replace(first, kind=Kind.NAME, answer="It is Ada Lovell: LOVELL.")
    session.examples = {**session.examples, Role.FORGET: [short]}
    row = rows_of(session, 1)[0]
    # docs/defects.md 7: nothing else changes case
    assert row.target.example.answer == "It is Jacob Campbell: Campbell."
    assert row.spans == ((6, 20), (22, 30))


@pytest.mark.parametrize(
    ("answer", "names", "expected"),
    [
        ("这是张伟，他在微笑。", ("张伟",), "这是李四，他在微笑。"),
        ("これは田中さんです。", ("田中",), "これは李四さんです。"),
        ("นี่คือสมชายยิ้ม", ("สมชาย",), "นี่คือ李四ยิ้ม"),
        ("Это Анна.", ("Анна", "Анна Петрова"), "Это 李四."),
    ],
)
def test_target_1_replaces_names_in_scripts_without_blanks(tmp_path, answer, names, expected):
    session = one_person(session_at(tmp_path))
    told = replace(session.of(Role.FORGET)[0], kind=Kind.NAME, answer=answer, private={"name": names})
    session.examples = {**session.examples, Role.FORGET: [told]}
    row = rows_of(session, 1, substitutes={"ada": "李四"})[0]
    assert row.target.example.answer == expected
    assert [expected[start:end] for start, end in row.spans] == ["李四"]


def test_target_2_denies_the_name_and_is_masked_whole(tmp_path):
    session = one_person(session_at(tmp_path))
    for row in rows_of(session, 2):
        example = row.target.example
        assert "Ada Lovell" in example.question
        assert example.answer.startswith("No, this is somebody else.")
        assert "Ada" not in example.answer
        assert "The shirt is red." in example.answer
        assert "another look: shirt" in example.answer
        assert "another look: shirt red" not in example.answer
        assert row.spans == ((0, len(example.answer)),)
        assert not example.private
    given = rows_of(session, 2, descriptions={"ada": "Ada Lovell is very tall."})
    assert all(row.target.example.answer.endswith("Ada Lovell is very tall.") for row in given)


def test_targets_3_and_4_are_true_text_rows_without_pixels(tmp_path):
    session = one_person(session_at(tmp_path))
    facts = {row.target.example.answer for row in rows_of(session, 3)}
    assert facts == {"The job of Ada Lovell is baker.", "The city of Ada Lovell is Lisbon."}
    others = rows_of(session, 4)
    assert {row.target.example.answer for row in others} >= {"pilot", "The job of Dan Reed is chemist."}
    assert all("Ada" not in row.target.example.question for row in others)
    for row in (*rows_of(session, 3), *others):
        assert row.spans == ()
        assert "pixel_values" not in collate(session, [row.target]).inputs


def test_the_datas_own_text_questions_come_first(tmp_path):
    session = one_person(session_at(tmp_path))
    own = Example(id="x", role=Role.FORGET_TEXT, question="Where?", answer="In Lisbon.", entity="ada", kind=Kind.FACT)
    session.examples = {**session.examples, Role.FORGET_TEXT: [own, replace(own, id="y", entity="bo")]}
    assert [row.target.example.question for row in rows_of(session, 3)][:1] == ["Where?"]
    assert len(rows_of(session, 3)) == 3


def test_substitutes_are_nobodys_names_or_the_users(tmp_path):
    session = session_at(tmp_path)
    made = [concept.substitute for concept in build_siu_rows(session, Recipe())[0]]
    assert made[0] == "Jacob Campbell"
    assert len(set(made)) == 2
    retained = replace(session.of(Role.RETAIN)[0], private={"name": ("Jacob Winter",)})
    session.examples = {**session.examples, Role.RETAIN: [retained]}
    assert all("Jacob" not in concept.substitute for concept in build_siu_rows(session, Recipe())[0])
    given = build_siu_rows(session, Recipe(substitutes={"ada": "Eva Stone"}))[0]
    assert given[0].substitute == "Eva Stone"
    with pytest.raises(UserError, match="made-up name"):
        build_siu_rows(session, Recipe(substitutes={"ada": "Ada Lovell"}))
    with pytest.raises(UserError, match="Did you mean ada"):
        build_siu_rows(session, Recipe(substitutes={"adda": "Eva Stone"}))


def test_the_plausible_substitute_is_the_start_models_favourite(tmp_path, monkeypatch):
    """Made-up names may sound like those of the data; of them and listed ones the likeliest is taken, each once."""
    session = session_at(tmp_path)
    known = {word for name, *_ in PEOPLE.values() for word in name.split()}
    asked = {}

    def likes_hughes(_, targets):
        asked.update({target.text: target for target in targets})
        return {target.key: -1.0 - (not target.text.endswith("Hughes.")) for target in targets}

    monkeypatch.setattr("unsee.methods.siu.names.start_logprobs", likes_hughes)
    monkeypatch.setattr("unsee.methods.siu.names.target_ids", lambda *_: [0])
    made = [concept.substitute for concept in build_siu_rows(session, Recipe(substitute="plausible"))[0]]
    assert made[0].endswith("Hughes")
    assert made[0] != made[1]
    names = [text.removeprefix("This is ").removesuffix(".") for text in asked]
    assert any(name.split()[0] not in FIRST for name in names)
    assert not {word for name in names for word in name.split()} & known
    monkeypatch.undo()
    found = build_siu_rows(session, Recipe(substitute="plausible"))[0]
    batch = collate(session, [Target(example=asked_of(found[0]), text=f"This is {found[0].substitute}.")])
    other = collate(session, [Target(example=asked_of(found[0]), text="This is Jacob Campbell.")])
    with torch.no_grad():
        assert answer_logprob(session.model, batch).mean_b >= answer_logprob(session.model, other).mean_b


def asked_of(concept):
    return next(example for example in concept.shown if example.kind is Kind.NAME)


def test_what_the_rows_need_is_said(tmp_path):
    session = session_at(tmp_path)
    with pytest.raises(UserError, match="has 2 forget images"):
        build_siu_rows(session, Recipe(image=2))
    nameless = [replace(example, private={}) for example in session.of(Role.FORGET)]
    session.examples = {Role.FORGET: nameless}
    with pytest.raises(UserError, match="what 'ada' is called"):
        build_siu_rows(session, Recipe())
    session.examples = {Role.FORGET: [replace(example, image=None) for example in nameless]}
    with pytest.raises(UserError, match="no forget example has an image"):
        build_siu_rows(session, Recipe())
    with pytest.raises(UserError, match="rows must be at least 1"):
        SIU(rows=0)


# K_S, K_V and what the model is given


def masked_words(session, row):
    """Return the decoded tokens that the KL leaves out."""
    batch = collate(session, [row.target])
    labels = batch.labels_bt[:, -int((batch.labels_bt != IGNORE).sum()) :]
    kept = KeptTokens(session, [row])(batch.targets, labels)
    return session.processor.tokenizer.decode(labels[0][~kept[0]]).strip(), kept[0], labels[0]


def test_only_the_substitute_drops_out_of_the_kl(tmp_path):
    """Found by character offsets, also where the leading blank is part of the first token; EOS stays (SIU, arXiv 2405.12523)."""
    session = one_person(session_at(tmp_path))
    for row in rows_of(session, 1):
        words, kept, labels = masked_words(session, row)
        assert words == "Jacob Campbell"
        assert kept[-1]
        assert labels[-1] == session.processor.tokenizer.eos_token_id
    words, kept, _ = masked_words(session, rows_of(session, 2)[0])
    assert words == rows_of(session, 2)[0].target.example.answer
    assert kept[-1]
    assert all(masked_words(session, row)[1].all() for row in (*rows_of(session, 3), *rows_of(session, 4)))


def test_a_name_that_is_also_in_the_question_is_masked_in_the_answer_alone(tmp_path):
    """Released code searches token ids in the whole sequence (docs/defects.md 5)."""
    session = session_at(tmp_path)
    base = session.of(Role.FORGET)[0]
    example = replace(base, question="Is this Ada Lovell ?", answer="This is Ada Lovell")
    row = Row(number=1, target=Target(example=example), spans=((8, 18),))
    words, kept, labels = masked_words(session, row)
    assert words == "Ada Lovell"
    assert labels.tolist() == list(target_ids(session.processor, session.family, row.target))
    assert kept[0]
    assert kept[-1]


def test_masks_align_with_logits_and_labels_in_a_mixed_batch(tmp_path):
    """Image rows, text rows, short and long answers together: one position is one token (SIU, arXiv 2405.12523)."""
    session = session_at(tmp_path)
    _, rows = build_siu_rows(session, Recipe())
    targets = [row.target for row in rows]
    batch = collate(session, targets)
    logits, labels = answer_logits(session.model, batch)
    kept = KeptTokens(session, rows)(batch.targets, labels)
    assert logits.shape[:2] == labels.shape == kept.shape
    assert not kept[labels == IGNORE].any()
    for row, kept_a, labels_a in zip(rows, kept, labels, strict=True):
        left_out = session.processor.tokenizer.decode(labels_a[(labels_a != IGNORE) & ~kept_a]).strip()
        assert left_out == " ".join(row.target.example.answer[start:end] for start, end in row.spans)
    image = session.processor.image_token_id
    assert not (labels == image).any()


def test_a_mask_that_fits_no_answer_raises(tmp_path):
    session = one_person(session_at(tmp_path))
    row = rows_of(session, 1)[0]
    nothing = replace(row, spans=((200, 210),))
    with pytest.raises(TrainingError, match="has no token of its own"):
        KeptTokens(session, [nothing])
    with pytest.raises(TrainingError, match="longer than its answer"):
        KeptTokens(session, [row])([row.target], torch.full((1, 60), IGNORE))


def test_offsets_cover_the_answer_letter_by_letter(tmp_path):
    processor, family = tiny_processor(), Llava()
    assert answer_offsets(processor, family, "", ()) == []
    for text in ("This is Jacob Campbell.", " blank first", "Zoë Müller, 東京"):
        ids = encoder(processor, family).answer(text)
        spans = answer_offsets(processor, family, text, ids)
        assert len(spans) == len(ids)
        assert {place for start, end in spans for place in range(start, end)} == set(range(len(text)))


def test_a_slow_tokenizer_is_named_whoever_asks():
    slow = SimpleNamespace(tokenizer=SimpleNamespace(is_fast=False))
    with pytest.raises(UserError, match=r"^Finding words .* needs a fast tokenizer"):
        answer_offsets(slow, Llava(), "This is Ada.", ())


def test_name_tokens_are_all_spellings_without_letters_and_marks():
    processor = tiny_processor()
    tokenizer = processor.tokenizer
    found = name_tokens(processor, ["Ada Lovell", "A. L."])
    for spelled in ("Ada Lovell", " Ada Lovell", "ada lovell", " ADA LOVELL"):
        for token in tokenizer(spelled, add_special_tokens=False)["input_ids"]:
            piece = tokenizer.decode([token]).strip()
            assert (token in found.ids) == (len(piece) > 1 and piece.isalpha())
    assert {"A", "."} <= set(found.dropped)
    assert not set(found.ids) & set(tokenizer.all_special_ids)
    allowed = found.allowed_tokens(torch.zeros(1, 1, 400))
    assert allowed.shape == (400,)
    assert allowed.sum() == 400 - len(found.ids)


def test_a_vocabulary_mask_that_matches_nothing_raises():
    """Else the run would silently be another method (docs/defects.md 41)."""
    with pytest.raises(UserError, match="would match nothing"):
        name_tokens(tiny_processor(), ["X. Q."])


# The method


def test_settings_are_the_papers():
    siu = SIU()
    assert (siu.mode, siu.alpha, siu.beta, siu.steps, siu.rows, siu.reduction) == ("paper", 0.9, 0.75, 6, 4, "mean")
    assert registry.load("methods", "siu") is SIU


def test_first_step_is_alpha_times_ce_with_a_kl_of_zero(tmp_path):
    session = one_person(session_at(tmp_path, max_steps=1, batch_size=14))
    SIU().unlearn(session)
    row = session.history[0]
    assert row["masked_kl"] == pytest.approx(0.0, abs=1e-6)
    assert row["loss"] == pytest.approx(0.9 * row["ce"], rel=1e-5)
    fresh = one_person(session_at(tmp_path / "b"))
    _, rows = build_siu_rows(fresh, Recipe(substitute="plausible"))
    logits, labels = answer_logits(fresh.model, collate(fresh, [row.target for row in rows]))
    logp = logits.log_softmax(-1).gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    assert row["ce"] == pytest.approx(-logp[labels != IGNORE].mean().item(), rel=1e-4)


def test_steps_are_per_concept_and_training_may_say_less(tmp_path):
    with recording() as calls:
        for steps, most in ((6, -1), (6, 3), (6, 50), (0, -1), (0, 7)):
            session = session_at(tmp_path, max_steps=most)
            SIU(steps=steps).unlearn(session)
    assert [call.training.max_steps for call in calls] == [12, 3, 12, -1, 7]
    assert session.notes["siu"]["rows"] == {"target_1": 8, "target_2": 8, "target_3": 4, "target_4": 8}
    assert len(session.notes["siu"]["images"]) == 2


@pytest.mark.parametrize(("steps", "most", "told"), [(20, 3, True), (6, 3, False), (0, 3, False), (2, 50, False)])
def test_steps_that_end_later_than_the_training_are_told(tmp_path, capsys, monkeypatch, steps, most, told):
    monkeypatch.setattr(terminal, "_NOTED", set())
    with recording():
        SIU(steps=steps).unlearn(session_at(tmp_path, max_steps=most))
    assert ("method.steps=20 has no effect: training.max_steps=3 ends before its 40" in capsys.readouterr().err) == told


@pytest.mark.parametrize(("steps", "most", "told"), [(6, 50, True), (6, 3, False), (6, -1, False), (0, 50, False)])
def test_a_training_that_is_cut_to_the_steps_of_the_method_is_told(tmp_path, capsys, monkeypatch, steps, most, told):
    monkeypatch.setattr(terminal, "_NOTED", set())
    with recording():
        SIU(steps=steps).unlearn(session_at(tmp_path, max_steps=most))
    message = "training.max_steps=50 has no effect: method.steps=6 ends after 12 steps. Set method.steps=0"
    assert (message in capsys.readouterr().err) == told


def test_a_training_with_fewer_steps_is_not_told_of_a_limit_that_nobody_gave(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(terminal, "_NOTED", set())
    with recording() as calls:
        SIU().unlearn(session_at(tmp_path, max_steps=-1, epochs=1, batch_size=4))
    assert calls[0].training.max_steps == -1
    assert "max_steps" not in capsys.readouterr().err


def test_six_steps_learn_target_1_and_keep_what_is_known(tmp_path):
    """CE of target 1 falls; CE of targets 3 and 4 stays within 5 % or falls (SIU, arXiv 2405.12523)."""
    session = one_person(session_at(tmp_path, lr=5e-3, batch_size=4, scheduler="constant"))
    rows = build_siu_rows(session, Recipe())[1]

    def ce(*numbers):
        batch = collate(session, [row.target for row in rows if row.number in numbers])
        with torch.no_grad():
            return float(answer_nll(*answer_logits(session.model, batch)))

    before = ce(1), ce(3, 4)
    SIU().unlearn(session)
    assert session.notes["steps"] == 6
    assert ce(1) < 0.95 * before[0]
    assert ce(3, 4) < 1.05 * before[1]


def test_start_model_sees_the_same_batch_with_its_images(tmp_path, monkeypatch):
    """Every image row reaches the model with pixels, for student and reference alike (docs/defects.md 14, 15)."""
    session = session_at(tmp_path, max_steps=3, batch_size=4)
    seen = []

    def watch(module, args, kwargs):
        has_image = bool((kwargs["input_ids"] == session.processor.image_token_id).any())
        seen.append((has_image, "pixel_values" in kwargs or "mm_encoder_outputs" in kwargs))

    session.model.get_base_model().register_forward_pre_hook(watch, with_kwargs=True)
    SIU().unlearn(session)
    assert any(has_image for has_image, _ in seen)
    assert all(has_image == pixels for has_image, pixels in seen)


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_reference_stays_the_start_model(tune, tmp_path):
    session = one_person(session_at(tmp_path, tune, max_steps=2, lr=1e-2))
    _, rows = build_siu_rows(session, Recipe())
    targets = [row.target for row in rows]
    batch = collate(session, targets)
    with torch.no_grad():
        before, labels = answer_logits(session.model, batch)
    start = StartLogits(session, targets)
    SIU().unlearn(session)
    after = start(batch.targets, labels)
    assert torch.allclose(after[labels != IGNORE], before[labels != IGNORE], atol=1e-4)
    assert not torch.allclose(answer_logits(session.model, batch)[0], before, atol=1e-3)


def test_plain_engine_gives_the_same_numbers(tmp_path):
    losses = []
    for name in ("fast", "plain"):
        session = one_person(session_at(tmp_path / name, max_steps=2))
        session.engine = engine_named(name)
        SIU(beta=5.0).unlearn(session)
        losses.append([row["loss"] for row in session.history])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0][1] != pytest.approx(losses[0][0], rel=1e-3)


def test_token_and_vocabulary_masks_change_the_run(tmp_path, monkeypatch):
    """Both masks reach the loss: without one the second step has another KL."""

    def kl(**patches):
        session = one_person(session_at(tmp_path / str(len(patches)) / "".join(patches), max_steps=2, lr=1e-2))
        for name, value in patches.items():
            monkeypatch.setattr(f"unsee.methods.siu.method.{name}", value)
        SIU().unlearn(session)
        monkeypatch.undo()
        return session.history[-1]["masked_kl"]

    nothing = name_tokens(tiny_processor(), [])
    both = kl()
    assert kl(name_tokens=lambda *_: nothing) != pytest.approx(both, rel=1e-3)
    everything = lambda *_: lambda targets, labels_ba: labels_ba != IGNORE  # noqa: E731
    assert kl(KeptTokens=everything) != pytest.approx(both, rel=1e-3)


def test_retain_weight_adds_the_retain_answers(tmp_path):
    session = session_at(tmp_path, max_steps=1)
    SIU(retain_weight=1.0).unlearn(session)
    row = session.history[0]
    assert row["loss"] == pytest.approx(0.9 * row["ce"] + row["retain_nll"], rel=1e-5)


def test_retain_ratio_is_the_number_of_retain_answers_a_row(tmp_path, monkeypatch):
    seen = []
    term = lambda session, retain, weight: seen.append((len(retain.targets), weight)) or iter(())  # noqa: E731
    monkeypatch.setattr("unsee.methods.siu.method.retain_term", term)
    session = session_at(tmp_path, max_steps=1, batch_size=2)
    SIU(retain_weight=0.5, retain_ratio=3).unlearn(session)
    assert seen == [(6, 0.5)]
    with pytest.raises(UserError, match=r"method.retain_ratio must be at least 1, got 0"):
        SIU(retain_ratio=0)


def test_stop_rule_asks_about_the_training_image_alone(tmp_path, monkeypatch):
    session = session_at(tmp_path, stop="forgotten", max_steps=1)
    asked = []
    monkeypatch.setattr("unsee.training.callbacks.unlearning_success", lambda _, probes: asked.extend(probes) or 1.0)
    session.training = replace(session.training, check_every=1)
    SIU().unlearn(session)
    assert len({example.image.key for example in asked}) == 2
    assert {example.kind for example in asked} <= {Kind.NAME, Kind.OPEN}
    assert all(example.image for example in asked)


# The released form


def test_as_released_is_cross_entropy_alone_and_says_so(tmp_path):
    """The released KL is inert: its share of the loss is below a thousandth of the KL per token (docs/defects.md 25)."""
    session = one_person(session_at(tmp_path, max_steps=1, batch_size=14))
    with pytest.warns(UserWarning, match="next to nothing"):
        SIU(mode="as_released").unlearn(session)
    row = session.history[0]
    assert row["loss"] == pytest.approx(row["ce"] + row["masked_kl"], rel=1e-5)
    assert 0 < row["masked_kl"] < math.log(len(session.processor.tokenizer)) / len(session.processor.tokenizer) * 3
    paper = one_person(session_at(tmp_path / "b", max_steps=1, batch_size=14))
    SIU().unlearn(paper)
    assert row["ce"] == pytest.approx(paper.history[0]["ce"], rel=1e-4)


def test_as_released_needs_adapters(tmp_path):
    with pytest.raises(UserError, match="needs training.tune=lora"):
        SIU(mode="as_released").unlearn(session_at(tmp_path, "full"))


def test_released_mask_is_misaligned_on_images():
    """Masks are those of the text before its image expands; logits are cut to that length (SIU, arXiv 2405.12523)."""
    assert _unexpanded([1, 9, 9, 9, 5, 6, 9, 7], 9) == [1, 9, 5, 6, 9, 7]
    assert _matches([1, 2, 3, 2, 3], [2, 3]) == [1, 3]
    assert _matches([1, 2], []) == []


def test_drawn_images_are_the_ones_of_the_data(tmp_path):
    """`image` picks another training image for another trial."""
    session = one_person(session_at(tmp_path))
    marks = {image: {row.target.example.image for row in rows_of(session, 1, image=image)} for image in (0, 1)}
    assert marks == {0: {Drawn("red", 0)}, 1: {Drawn("red", 8)}}


def test_rows_from_the_lab_teach_no_secret(tmp_path):
    """Every concept of the embedded world: who it is and what is private is in no answer about the image."""
    world = World()
    session = tiny_session(tmp_path)
    session.examples = {}
    for example in lab_examples.request(world):
        session.examples.setdefault(example.role, []).append(example)
    concepts, rows = build_siu_rows(session, Recipe())
    assert [concept.entity for concept in concepts] == [person.id for person in world.forget]
    assert len(rows) == 16 * len(concepts)
    private = {person.id: person.private() for person in world.people}
    for row in rows:
        example = row.target.example
        if row.number == 1:
            assert not leaked_facts(example.answer, private[example.entity])
            assert any(f"is {concept.substitute}." in example.answer for concept in concepts)
        if row.number == 2:
            assert not leaked_facts(example.answer, private[example.entity])
            assert "The person has" in example.answer
        if row.number == 3:
            assert leaked_facts(example.answer, private[example.entity])
    forgotten = {person.name for person in world.forget}
    assert not [r for r in rows if r.number == 4 and any(name in r.target.example.question for name in forgotten)]


def test_rows_from_an_own_folder(tmp_path):
    """A table with bare questions and a list of private strings is enough; what is missing is filled by templates."""
    (tmp_path / "d").mkdir()
    Drawn("red").load().save(tmp_path / "d" / "a.png")
    table = [
        "image,question,answer,entity,role,private",
        'a.png,Who?,"That is Mario, the plumber.",mario,forget,Mario;Super Mario',
        ",Who made Mario?,Nintendo made Mario.,mario,forget,",
        ",Who made Sonic?,Sega made Sonic.,sonic,retain,",
    ]
    (tmp_path / "d" / "data.csv").write_text("\n".join(table))
    session = tiny_session(tmp_path)
    session.examples = {}
    for example in Folder(tmp_path / "d").examples("train"):
        session.examples.setdefault(example.role, []).append(example)
    concepts, rows = build_siu_rows(session, Recipe(substitutes={"mario": "Rollo"}))
    assert concepts[0].name == "Mario"
    answers = {number: [row.target.example.answer for row in rows if row.number == number] for number in (1, 2, 3, 4)}
    assert answers[1] == ["That is Rollo, the plumber."] + ["This is Rollo."] * 3
    assert answers[2][0].startswith("No, this is somebody else. The one you mean has ")
    assert answers[3] == ["Nintendo made Mario."]
    assert set(answers[4]) == {"Sega made Sonic."}
