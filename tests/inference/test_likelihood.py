"""Likelihoods from shared rows are those of one row an answer, and cost few forward passes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from torch.testing import assert_close

from unsee.api.fast_paths import PLAIN
from unsee.api.request import Prompt, Target
from unsee.errors import UserError
from unsee.inference.answer_logits import answer_logprob
from unsee.inference.batching import collate
from unsee.inference.encoder import encoder
from unsee.inference.likelihood import likelihoods, likelihoods_and_choices
from unsee.testing.tiny import (
    INSTRUCTION,
    QUESTION,
    Drawn,
    tiny_examples,
    tiny_session,
    tiny_vlm,
)

QUESTIONS = ("Who is this?", QUESTION, "What does this person do? Tell me.")
ANSWERS = ("Ada Lovell", "Ada Winter , a diver .", "pilot")


@pytest.fixture(params=[1, 16])
def vlm(request):
    return tiny_vlm(request.param)


@pytest.fixture
def calls(vlm, monkeypatch):
    """Count forward passes and the tokens in them."""
    seen = []
    true = vlm.model.forward

    def counted(**inputs):
        seen.append(inputs["input_ids"].shape)
        return true(**inputs)

    monkeypatch.setattr(vlm.model, "forward", counted)
    return seen


def choices(vlm, questions):
    return likelihoods_and_choices(vlm, (), questions)[1]


def asked():
    """Two images and none, three questions, three answers each."""
    return [
        (Prompt(question, image, instruction), answer)
        for image in (Drawn("red"), None, Drawn("blue"))
        for instruction in ("", INSTRUCTION)
        for question in QUESTIONS
        for answer in ANSWERS
    ]


def test_equal_to_one_row_an_answer(tmp_path):
    session = tiny_session(tmp_path)
    examples = [example for group in tiny_examples().values() for example in group]
    targets = [Target(example=example) for example in examples]
    wanted = answer_logprob(session.model, collate(replace(session.vlm, engine=PLAIN), targets))
    pairs = [(Prompt.of(example), example.answer) for example in examples]
    found = likelihoods(session.vlm, pairs)
    assert_close([one.sum for one in found], wanted.sum_b.tolist(), atol=1e-4, rtol=0)
    assert_close([one.mean for one in found], wanted.mean_b.tolist(), atol=1e-4, rtol=0)
    for one, row in zip(found, wanted.token_ba.tolist(), strict=True):
        assert_close(list(one.tokens), row[-len(one.tokens) :], atol=1e-4, rtol=0)


def test_fast_equals_plain_whatever_shares_a_row(vlm):
    fast = likelihoods(vlm, asked())
    plain = likelihoods(replace(vlm, engine=PLAIN), asked())
    assert len({round(one.sum, 3) for one in fast}) > 40
    for one, other in zip(fast, plain, strict=True):
        assert_close(list(one.tokens), list(other.tokens), atol=1e-4, rtol=0)


@pytest.mark.parametrize("limit", [1, 40])
def test_rows_and_batches_of_any_size_give_the_same(vlm, monkeypatch, limit):
    wanted = [one.sum for one in likelihoods(vlm, asked())]
    monkeypatch.setattr("unsee.inference.likelihood.ROW_TOKENS", limit)
    assert_close([one.sum for one in likelihoods(vlm, asked(), batch_size=2)], wanted, atol=1e-4, rtol=0)


def test_the_logits_of_a_pass_stay_within_the_limit(vlm, monkeypatch):
    """Two rows that read different positions take the logits of all of these in both rows."""
    one_answer = [(Prompt(QUESTIONS[2], Drawn("red")), ANSWERS[1])]
    two_questions = [(Prompt(question, Drawn("blue")), "pilot") for question in QUESTIONS[:2]]
    likelihoods(vlm, one_answer)  # with the trial of shared rows
    sizes, true = [], vlm.model.forward

    def measured(**inputs):
        found = true(**inputs)
        sizes.append(found.logits.numel())
        return found

    monkeypatch.setattr(vlm.model, "forward", measured)
    likelihoods(vlm, one_answer)
    likelihoods(vlm, two_questions)
    limit = 2 * max(sizes)
    likelihoods(vlm, [*one_answer, *two_questions])
    assert sizes[2:][0] > limit
    monkeypatch.setattr("unsee.inference.likelihood.BATCH_LOGITS", limit)
    likelihoods(vlm, [*one_answer, *two_questions])
    assert sizes[3:] == sizes[:2] or sizes[3:] == sizes[1::-1]


def test_one_forward_for_all_answers_about_an_image(vlm, calls):
    pairs = [(Prompt(question, Drawn("red")), answer) for question in QUESTIONS for answer in ANSWERS]
    likelihoods(vlm, pairs)
    assert len(calls) == 1
    likelihoods(replace(vlm, engine=PLAIN), pairs, batch_size=1)
    assert len(calls) == 1 + len(pairs)
    assert calls[0].numel() < sum(shape.numel() for shape in calls[1:]) / 2


def test_letters_cost_the_question_alone(vlm, calls):
    question = Prompt("Who is this? A. D. I. L.", Drawn("red"))
    (said,) = choices(vlm, [(question, "ADIL")])
    prompt = vlm.processor(
        text=vlm.family.prompt(vlm.processor, question.question, has_image=True), images=question.image.load()
    )
    assert [tuple(shape) for shape in calls] == [(1, len(prompt["input_ids"][0]))]
    assert len(said.logprobs) == 4


def test_letters_are_read_with_and_without_a_space(vlm):
    model, processor, family = vlm.model, vlm.processor, vlm.family
    question = Prompt("Who is this?", Drawn("red"))
    (said,) = choices(vlm, [(question, "ADIL")])
    row = encoder(processor, family).row(question)
    p_v = model(**row).logits[0, -1].softmax(-1)
    forms = [
        {processor.tokenizer(form, add_special_tokens=False)["input_ids"][-1] for form in (letter, f" {letter}")}
        for letter in "ADIL"
    ]
    wanted = [sum(p_v[form].item() for form in both) for both in forms]
    assert all(len(both) == 2 for both in forms)
    assert_close([math.exp(one) for one in said.logprobs], wanted, atol=1e-5, rtol=1e-4)
    assert said.index == max(range(4), key=said.logprobs.__getitem__)


def test_options_by_text_are_judged_by_their_mean(vlm):
    options = ("Ada Lovell", "Bo Winter , a diver", "pilot")
    requests = [Prompt(question, image) for question in QUESTIONS for image in (Drawn("red"), None)]
    plain = choices(replace(vlm, engine=PLAIN), [(request, options) for request in requests])
    fast = choices(vlm, [(request, options) for request in requests])
    assert [one.index for one in fast] == [one.index for one in plain]
    for one, other in zip(fast, plain, strict=True):
        assert_close(one.logprobs, other.logprobs, atol=1e-4, rtol=0)


def test_the_mode_and_gradients_of_the_model_stay(vlm):
    vlm.model.train()
    likelihoods(vlm, asked()[:2])
    assert vlm.model.training
    assert all(weight.grad is None for weight in vlm.model.parameters())


def test_empty_answers_and_options_are_refused(vlm):
    with pytest.raises(UserError, match="empty"):
        likelihoods(vlm, [(Prompt("Who is this?"), " ")])
    with pytest.raises(UserError, match="options"):
        choices(vlm, [(Prompt("Who is this?"), ())])


def test_too_long_a_row_names_its_question(vlm):
    vlm.model.config.text_config.max_position_embeddings = 60
    pairs = [(Prompt("Who is this?"), "Ada"), (Prompt("What is new?"), "pilot " * 80)]
    with pytest.raises(UserError, match=r"The question 'What is new\?' takes"):
        likelihoods(vlm, pairs)
