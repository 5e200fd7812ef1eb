"""PUBG (arXiv 2506.02541): losses, guidance rollouts, training."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch

from unsee.api import Kind, Role, Training, registry
from unsee.api.request import Completion, Target
from unsee.errors import TrainingError, UserError
from unsee.inference.answer_logits import answer_logits, answer_logprob
from unsee.inference.batching import collate, target_ids
from unsee.losses import answer_nll, ga_loss, npo_loss
from unsee.methods.bg_only import BGOnly
from unsee.methods.common.guidance import Draws, Guide, draw, forget_questions, forget_rows, undesired_targets
from unsee.methods.common.reference_model import StartLogits, as_start, start_logprobs
from unsee.methods.pubg import PUBG
from unsee.testing.tiny import INSTRUCTION, QUESTION, person, tiny_session
from unsee.training.recording import recording
from unsee.training.stop_rule import seen_probes, unlearning_success
from unsee.training.targets import forget_targets
from unsee.training.trainable import trainable
from unsee.training.trainer import minimise, prepare
from unsee.utils import terminal

PRIVATE_OF_BO = person("bo", Role.FORGET).private


def session_at(out, prepared=True, image_tokens=16, **settings):
    training = Training(**{"lr": 1e-3, "epochs": 1, "stop": "never", "max_new_tokens": 8, **settings})
    session = tiny_session(out, training=training, image_tokens=image_tokens)
    if prepared:
        session.model = prepare(session.model, session.family, training, session.seed)
    return session


def guidance(**more):
    return BGOnly(**{"instruction": "", "rollouts": 2, **more})


def guidance_loss(session, guide, index=0):
    examples = session.of(Role.FORGET)[:4]
    picked = collate(session, guide.pick(collate(session, [Target(example=e) for e in examples], index)))
    return guide.loss(picked.targets, *answer_logits(session.model, picked))


def train_a_step(session):
    minimise(
        session,
        lambda forget, _: {"loss": answer_nll(*answer_logits(session.model, forget))},
        forget=forget_targets(session)[:4],
    )


@pytest.mark.parametrize("tune", ["lora", "full"])
@pytest.mark.parametrize("teacher", ["live", "cached"])
def test_without_instruction_guidance_is_zero_at_the_start_and_positive_after_a_step(tmp_path, tune, teacher):
    session = session_at(tmp_path, tune=tune)
    guide = Guide(session, session.of(Role.FORGET), guidance(teacher=teacher))
    assert abs(guidance_loss(session, guide).item()) <= 1e-6
    train_a_step(session)
    assert guidance_loss(session, guide).item() > 1e-6


def test_with_instruction_guidance_has_a_gradient_at_the_start(tmp_path):
    session = session_at(tmp_path)
    guide = Guide(session, session.of(Role.FORGET), guidance(instruction=INSTRUCTION))
    loss = guidance_loss(session, guide)
    assert loss > 0
    loss.backward()
    assert sum(weight.grad.abs().sum() for weight in trainable(session.model).values()) > 0


def test_gradient_of_forgetting_is_minus_that_of_fine_tuning(tmp_path):
    session = session_at(tmp_path)
    batch = collate(session, forget_targets(session)[:1])
    grads = []
    for loss in (ga_loss, answer_nll):
        session.model.zero_grad()
        loss(*answer_logits(session.model, batch)).backward()
        grads.append(torch.cat([weight.grad.flatten().clone() for weight in trainable(session.model).values()]))
    assert grads[0].abs().sum() > 0
    assert torch.allclose(grads[0], -grads[1], atol=1e-7)


def test_one_step_of_forgetting_lowers_the_likelihood(tmp_path):
    session = session_at(tmp_path, max_steps=1)
    targets = forget_targets(session)[:1]
    before = answer_logprob(session.model, collate(session, targets)).mean_b.item()
    minimise(session, lambda f, _: {"loss": ga_loss(*answer_logits(session.model, f))}, forget=targets)
    assert answer_logprob(session.model, collate(session, targets)).mean_b.item() < before


def test_teacher_is_bit_identical_before_and_after_a_step_and_the_cache_agrees(tmp_path):
    session = session_at(tmp_path)
    targets = [replace(target, ended=i % 2 == 0) for i, target in enumerate(forget_targets(session)[:4])]
    labels = answer_logits(session.model, collate(session, targets))[1]
    live = StartLogits(session, targets, instruction=INSTRUCTION, teacher="live")
    cached = StartLogits(session, targets, instruction=INSTRUCTION, teacher="cached")
    before = live(targets, labels)
    train_a_step(session)
    mask = labels != -100
    assert torch.equal(before, live(targets, labels))
    assert torch.allclose(cached(targets, labels)[mask], before[mask], atol=1e-5)
    assert not torch.equal(answer_logits(session.model, collate(session, targets))[0][mask], before[mask])


@pytest.mark.parametrize("image_tokens", [1, 16])
def test_teacher_and_student_supervise_the_same_ids(tmp_path, image_tokens):
    session = session_at(tmp_path, prepared=False, image_tokens=image_tokens)
    targets = forget_targets(session)
    student = collate(session, targets)
    teacher = collate(session, [replace(target, instruction=INSTRUCTION) for target in targets])
    assert teacher.inputs["input_ids"].shape[1] > student.inputs["input_ids"].shape[1]
    for target, mine, theirs in zip(targets, student.labels_bt, teacher.labels_bt, strict=True):
        expected = target_ids(session.processor, session.family, target)
        assert tuple(mine[mine != -100].tolist()) == tuple(theirs[theirs != -100].tolist()) == expected


@pytest.mark.parametrize("teacher", ["live", "cached"])
def test_misaligned_answers_are_refused(tmp_path, teacher):
    session = session_at(tmp_path)
    targets = forget_targets(session)[:2]
    start = StartLogits(session, targets, teacher=teacher)
    labels = collate(session, targets).labels_bt.clone()
    labels[0, -2] = -100
    with pytest.raises(TrainingError, match="different answer tokens for example 'ada-0-open'"):
        start(targets, labels)


def test_npo_at_the_start(tmp_path):
    session = session_at(tmp_path)
    targets = forget_targets(session)[:4]
    start = start_logprobs(session, targets)
    grads = []
    for kind in ("npo", "ga"):
        session.model.zero_grad()
        batch = collate(session, targets)
        logp = answer_logprob(session.model, batch).sum_b
        if kind == "npo":
            loss = npo_loss(logp, torch.tensor([start[target.key] for target in targets]))
            assert loss.item() == pytest.approx(20 * math.log(2), rel=1e-5)
        else:
            loss = ga_loss(*answer_logits(session.model, batch), "sequence_sum")
        loss.backward()
        grads.append(torch.cat([weight.grad.flatten().clone() for weight in trainable(session.model).values()]))
    assert torch.allclose(grads[0], grads[1], rtol=1e-3, atol=1e-5)


def test_start_model_is_never_in_train_mode_nor_with_adapters(tmp_path):
    session = session_at(tmp_path, dropout=0.5)
    for name, weight in session.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    batch = collate(session, forget_targets(session)[:1])
    session.model.train()
    with as_start(session.model):
        assert torch.equal(answer_logits(session.model, batch)[0], answer_logits(session.model, batch)[0])
        start = answer_logits(session.model, batch)[0]
    assert session.model.training
    assert all(weight.requires_grad for name, weight in session.model.named_parameters() if "lora" in name)
    plain = session_at(tmp_path, prepared=False)
    assert torch.allclose(start, answer_logits(plain.model, batch)[0], atol=1e-6)


def test_no_second_model_under_lora(tmp_path, monkeypatch):
    session = session_at(tmp_path, max_steps=1)
    monkeypatch.setattr("unsee.methods.common.reference_model.copy", None)
    PUBG(undesired="dataset", teacher="live", rollouts=1).unlearn(session)


def test_rollouts_are_cached_by_everything_they_depend_on(tmp_path, monkeypatch):
    session = session_at(tmp_path)
    examples = session.of(Role.FORGET)
    first = Guide(session, examples, guidance(instruction=INSTRUCTION)).targets
    assert len(list((tmp_path / "work").glob("rollouts-*.jsonl"))) == 1
    with monkeypatch.context() as patch:
        patch.setattr("unsee.methods.common.guidance.generate", lambda *a, **k: pytest.fail("drawn again"))
        assert Guide(session, examples, guidance(instruction=INSTRUCTION)).targets == first
    Guide(session, examples, guidance(instruction=INSTRUCTION + " Now."))
    session.seed = 1
    Guide(session, examples, guidance(instruction=INSTRUCTION))
    session.model.get_base_model().lm_head.weight.data[5] += 1
    Guide(session, examples, guidance(instruction=INSTRUCTION))
    assert len(list((tmp_path / "work").glob("rollouts-*.jsonl"))) == 4


def test_rollout_of_a_batch_depends_on_the_batch_number(tmp_path):
    session = session_at(tmp_path)
    examples = session.of(Role.FORGET)
    guide = Guide(session, examples, guidance(instruction=INSTRUCTION, rollouts=4))
    batches = [collate(session, [Target(example=example) for example in examples], index) for index in (0, 0, 1, 2)]
    picks = [[target.token_ids for target in guide.pick(batch)] for batch in batches]
    assert picks[0] == picks[1]
    assert picks[0] != picks[2] or picks[0] != picks[3]


def test_leaking_rollouts_are_dropped_and_counted(tmp_path, monkeypatch):
    session = session_at(tmp_path)
    count = itertools.count()

    def fake(vlm, requests, **settings):
        texts = ["This is Ada Lovell" if next(count) % 2 else "red hair" for _ in requests]
        return [Completion(text, (next(count),), True) for text in texts]

    monkeypatch.setattr("unsee.methods.common.guidance.generate", fake)
    examples = session.of(Role.FORGET)[:2]
    found = draw(session, examples, Draws(name="rollouts", count=3, sampling=None, revealing=False))
    assert all(answer.text == "red hair" for drawn in found.values() for answer in drawn.kept)
    assert session.notes["rollouts"]["rejected"] > 0
    assert 0 < session.notes["rollouts"]["reject_rate"] < 1


def test_answers_in_another_script_than_the_private_strings_are_told(tmp_path, monkeypatch):
    """They are dropped because nothing would be found in them, not because the model ignores its instruction."""
    from unsee.methods.unsee.teacher import lessons

    def fake(vlm, requests, **settings):
        return [Completion("red hair", (5,), True) for _ in requests]

    monkeypatch.setattr("unsee.methods.common.guidance.generate", fake)
    session = session_at(tmp_path)
    session.examples[Role.FORGET] = [
        replace(example, private={"name": ("محمد",)}) for example in session.of(Role.FORGET)[:2]
    ]
    for draws_all in (
        lambda: Guide(session, session.of(Role.FORGET), guidance()),
        lambda: lessons(session, "picture", INSTRUCTION, 2, 1.0),
    ):
        with pytest.raises(UserError, match="give the strings in the script of the answers, too"):
            draws_all()


def test_the_first_revealing_answer_is_the_greedy_one(tmp_path, monkeypatch):
    def fake(vlm, requests, *, sampling, **settings):
        return [Completion("Ada Lovell", (7 if sampling else 5,), True) for _ in requests]

    monkeypatch.setattr("unsee.methods.common.guidance.generate", fake)
    session = session_at(tmp_path)
    ada = [example for example in session.of(Role.FORGET) if example.entity == "ada"][:2]
    targets = undesired_targets(session, ada, "self", 3)
    assert [(target.example.id, target.token_ids) for target in targets] == [
        (example.id, ids) for example in ada for ids in ((5,), (7,))
    ]


def test_a_model_that_reveals_nothing_has_nothing_of_its_own_to_unlearn(tmp_path):
    session = session_at(tmp_path)
    with pytest.raises(UserError, match="no revealing responses to unlearn"):
        undesired_targets(session, session.of(Role.FORGET)[:1], "self", 2)


def test_open_queries_only(tmp_path):
    session = session_at(tmp_path)
    assert {example.kind for example in forget_questions(session, "open")} == {Kind.OPEN}
    assert {example.kind for example in forget_questions(session, "all")} == {Kind.OPEN, Kind.NAME}
    names_only = [example for example in session.of(Role.FORGET) if example.kind is Kind.NAME]
    session.examples = {Role.FORGET: names_only}
    with pytest.raises(UserError, match=r"Add some, or set method\.queries=all\.$"):
        forget_questions(session, "open")
    session.examples = {Role.FORGET: [replace(example, private={}) for example in names_only]}
    with pytest.raises(UserError, match=r"with private strings\. Add some\.$"):
        forget_questions(session, "all")


def says(monkeypatch, text):
    """Let the original model say text(request), and return the requests that it gets."""
    asked = []

    def fake(vlm, requests, **settings):
        asked.extend(requests)
        return [Completion(text(request), (40, 41), True) for request in requests]

    monkeypatch.setattr("unsee.methods.common.guidance.generate", fake)
    return asked


def test_an_answer_about_a_picture_of_two_people_must_name_neither(tmp_path, monkeypatch):
    session = session_at(tmp_path)
    ada, cleo = person("ada", Role.FORGET), person("cleo", Role.FORGET)
    session.examples[Role.FORGET] = [ada, replace(cleo, image=ada.image), person("bo", Role.FORGET)]
    both = {fact: (*ada.private[fact], *cleo.private[fact]) for fact in ada.private}
    for questions in (forget_questions(session, "all"), seen_probes(forget_targets(session))):
        assert [(row.id, row.private) for row in questions] == [("ada-0-open", both), ("bo-0-open", PRIVATE_OF_BO)]
    says(monkeypatch, lambda _: "Cleo Marsh in red")
    found = draw(session, questions, Draws(name="rollouts", count=1, sampling=None, revealing=False))
    assert [len(found[row.id].kept) for row in questions] == [0, 1]


def several_answers(session):
    """Give a session three answers to one forget question, one of them twice."""
    row = person("ada", Role.FORGET)
    answers = ("Ada Lovell", "a baker", "from Lisbon", "a baker")
    session.examples[Role.FORGET] = [
        replace(row, id=f"ada-{number}", answer=answer) for number, answer in enumerate(answers)
    ]
    return session


def test_all_answers_that_the_data_give_to_a_question_are_unlearned(tmp_path, monkeypatch):
    session = several_answers(session_at(tmp_path))
    asked = says(monkeypatch, lambda _: "red hair")
    with recording() as calls:
        PUBG(undesired="dataset", rollouts=1).unlearn(session)
        assert len(asked) == 1
        registry.load("methods", "altpo")(alternates=1, retain_weight=0.0, instruction="Not {answer}").unlearn(session)
    for call in calls:
        assert [target.example.answer for target in call.forget] == ["Ada Lovell", "a baker", "from Lisbon"]
    assert {request.instruction for request in asked[1:]} == {"Not Ada Lovell", "Not a baker", "Not from Lisbon"}
    guide = Guide(session, forget_questions(session, "all"), guidance(rollouts=1))
    assert len(guide.pick(collate(session, calls[0].forget))) == 3
    assert len(undesired_targets(session, forget_rows(session, "all")[:1], "dataset", 1)) == 1


@pytest.mark.parametrize("name", ["pubg", "bg_only", "altpo", "vgid"])
def test_questions_without_a_drawn_answer_are_told_and_still_asked_by_the_stop_rule(
    name, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(terminal, "_NOTED", set())
    says(monkeypatch, lambda request: "red hair" if request.question == QUESTION else "Ada Lovell or Bo Winter")
    session = session_at(tmp_path, max_steps=1, check_every=1, stop="forgotten")
    registry.load("methods", name)(temperature=0.0, retain_weight=0.0).unlearn(session)
    assert session.notes["stop_reason"] == "forgotten at step 1 (USR 1.0 on 8 seen questions)"
    told = capsys.readouterr().err
    assert "For 4 of 8 forget questions no answer of the original model could be taken" in told
    assert "a higher method.temperature." in told
    assert ("method.undesired=dataset unlearns" in told) == (name == "pubg")


def test_without_guidance_no_rollout_is_drawn(tmp_path, monkeypatch):
    asked = says(monkeypatch, lambda _: "red hair")
    session = session_at(tmp_path, max_steps=1)
    settings = PUBG(undesired="dataset", guidance_weight=0.0)
    settings.unlearn(session)
    assert not asked
    assert session.history[0]["loss"] == pytest.approx(session.history[0]["forget_log_p"])
    assert (settings.needs().rows, settings.needs().teacher, settings.needs().generates) == (1, False, False)


def test_the_teacher_is_asked_under_the_instruction_that_the_model_has(tmp_path, monkeypatch):
    session = session_at(tmp_path)
    session.instruction = "Hush."
    asked = says(monkeypatch, lambda _: "red hair")
    assert abs(guidance_loss(session, Guide(session, session.of(Role.FORGET), guidance())).item()) <= 1e-6
    guide = Guide(session, session.of(Role.FORGET), guidance(instruction=INSTRUCTION))
    assert guidance_loss(session, guide).item() > 1e-6
    assert {request.instruction for request in asked} == {"Hush.", f"Hush. {INSTRUCTION}"}
    assert len(list((tmp_path / "work").glob("rollouts-*.jsonl"))) == 2
    session.instruction = ""
    Guide(session, session.of(Role.FORGET), guidance())
    assert len(list((tmp_path / "work").glob("rollouts-*.jsonl"))) == 3


def taught_session(out):
    """Return a session whose model names four people, and describes them instead under the instruction."""
    session = session_at(out / "teach", tune="full", parts=("projector", "language"), lr=5e-3, epochs=60)
    session.model = prepare(session.model, session.family, session.training, 0)
    people = [person(name, Role.FORGET, mark) for name in ("ada", "bo") for mark in (0, 8)]
    targets = [Target(example=example) for example in people]
    targets += [Target(example=e, text=f"The shirt is {e.visible['shirt']} .", instruction=INSTRUCTION) for e in people]
    minimise(session, lambda f, _: {"loss": answer_nll(*answer_logits(session.model, f))}, forget=targets)
    session.examples = {Role.FORGET: people}
    return session


@pytest.mark.slow
def test_overfit_two_people_two_images(tmp_path):
    """USR goes from 0 to 1, the guidance KL falls, in at most 200 steps; and what is said is the description."""
    session = taught_session(tmp_path)
    probes = seen_probes(forget_targets(session))
    session.training = Training(
        lr=3e-3, max_steps=200, epochs=200, max_new_tokens=24, batch_size=4, stop="forgotten", check_every=5
    )
    session.model = prepare(session.model, session.family, session.training, 0)
    assert unlearning_success(session, probes) == 0.0
    session.history.clear()
    session.out = tmp_path / "forget"
    PUBG(instruction=INSTRUCTION, rollouts=2, responses=2).unlearn(session)
    assert unlearning_success(session, probes) == 1.0
    assert session.notes["steps"] < 200
    assert session.notes["stop_reason"].startswith("forgotten at step")
    assert session.history[-1]["guidance_kl"] < 0.5 * session.history[0]["guidance_kl"]
    assert session.history[-1]["forget_log_p"] < session.history[0]["forget_log_p"]
    assert session.notes["undesired"]["without_any"] == 0
    assert probes[0].question == QUESTION
