"""Losses against formulas written out by hand."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from unsee.losses import (
    answer_nll,
    ga_loss,
    js_to_token,
    kl_loss,
    npo_loss,
    per_sample,
    token_js,
    token_kl,
    token_logprobs,
)
from unsee.methods.unsee.teacher import mixed_logprobs


@pytest.fixture
def case():
    """Two samples of 2 and 3 answer tokens over a vocabulary of 5, right-aligned."""
    torch.manual_seed(0)
    return torch.randn(2, 3, 5), torch.tensor([[-100, 1, 4], [0, 2, 3]])


def test_token_logprobs_are_those_of_the_labels(case):
    logits, labels = case
    expected = logits.log_softmax(-1)
    assert token_logprobs(logits, labels)[0].tolist() == pytest.approx(
        [0.0, expected[0, 1, 1].item(), expected[0, 2, 4].item()]
    )


def test_per_sample_reductions(case):
    logits, labels = case
    logp = token_logprobs(logits, labels)
    assert per_sample(logp, labels, "sequence_sum")[0] == pytest.approx(float(logp[0].sum()))
    assert per_sample(logp, labels, "token_mean")[0] == pytest.approx(float(logp[0].sum()) / 2)


def test_ga_is_minus_cross_entropy_and_floor_drops_samples(case):
    logits, labels = case
    assert ga_loss(logits, labels) == pytest.approx(-float(answer_nll(logits, labels)))
    assert ga_loss(logits, labels, floor=0.0) == ga_loss(logits, labels)  # the log says what is, floor or not
    low, high = sorted(-float(answer_nll(row[None], label[None])) for row, label in zip(logits, labels, strict=True))
    kept, dropped = (0, 1) if -float(answer_nll(logits[:1], labels[:1])) == high else (1, 0)
    logits.requires_grad_()
    (free,) = torch.autograd.grad(ga_loss(logits, labels), logits)
    (held,) = torch.autograd.grad(ga_loss(logits, labels, floor=(low + high) / 2), logits)
    assert torch.equal(held[kept], free[kept])
    assert held[dropped].abs().sum() == 0


def test_npo_starts_at_two_over_beta_log_two_with_the_gradient_of_ascent():
    logp = torch.tensor([-3.0, -5.0], requires_grad=True)
    loss = npo_loss(logp, logp.detach(), beta=0.1)
    assert loss.item() == pytest.approx(2 / 0.1 * math.log(2))
    loss.backward()
    assert logp.grad is not None
    assert logp.grad.tolist() == pytest.approx([0.5, 0.5])


def test_npo_does_not_depend_on_how_samples_are_grouped():
    logp, start = torch.tensor([-3.0, -9.0, -1.0, -2.0]), torch.tensor([-2.0, -2.5, -1.5, -6.0])
    halves = [npo_loss(logp[i : i + 2], start[i : i + 2]) for i in (0, 2)]
    assert npo_loss(logp, start).item() == pytest.approx(sum(halves).item() / 2)
    assert npo_loss(logp, start) != npo_loss(logp.mean()[None], start.mean()[None])


def test_kl_ignores_padding_prompt_and_length(case):
    teacher, labels = case
    student = torch.randn(2, 3, 5)
    value = kl_loss(teacher, student, labels)
    pad = torch.randn(2, 4, 5)
    padded = kl_loss(
        torch.cat([pad, teacher], 1),
        torch.cat([pad * 3, student], 1),
        torch.cat([torch.full((2, 4), -100), labels], 1),
    )
    assert padded.item() == pytest.approx(value.item())
    doubled = kl_loss(teacher.repeat(1, 2, 1), student.repeat(1, 2, 1), labels.repeat(1, 2))
    assert doubled.item() == pytest.approx(value.item())


def test_kl_direction_and_sign(case):
    teacher, labels = case
    student = torch.randn(2, 3, 5)
    forward, reverse = kl_loss(teacher, student, labels), kl_loss(teacher, student, labels, "reverse")
    assert forward > 0
    assert reverse.item() == pytest.approx(kl_loss(student, teacher, labels).item())
    assert forward != reverse
    assert kl_loss(teacher, teacher, labels).item() == pytest.approx(0.0, abs=1e-7)


def test_chain_rule_of_sequence_kl():
    """Vocabulary 5, length 3: the enumerated KL between sequences is the expected sum of token KLs."""
    torch.manual_seed(1)
    table_p, table_q = torch.randn(31, 5), torch.randn(31, 5)

    def logits(table, prefix):
        return table[(sum((t + 1) * 6**i for i, t in enumerate(prefix))) % 31]

    enumerated = expected = 0.0
    for sequence in itertools.product(range(5), repeat=3):
        log_p = sum(logits(table_p, sequence[:i]).log_softmax(-1)[t] for i, t in enumerate(sequence))
        log_q = sum(logits(table_q, sequence[:i]).log_softmax(-1)[t] for i, t in enumerate(sequence))
        kl = sum(token_kl(logits(table_p, sequence[:i]), logits(table_q, sequence[:i])) for i in range(3))
        enumerated += float(log_p.exp() * (log_p - log_q))
        expected += float(log_p.exp() * kl)
    assert enumerated == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("far", [5.0, 300.0])
def test_jensen_shannon_is_right_where_a_probability_rounds_to_0(far):
    first, second = torch.tensor([[[far, 0.0, -far]]]), torch.tensor([[[0.0, far, -far]]], requires_grad=True)
    p, q = (logits.detach().double().softmax(-1) for logits in (first, second))
    middle = (p + q) / 2
    wanted = (torch.xlogy(p, p / middle).nan_to_num() + torch.xlogy(q, q / middle).nan_to_num()).sum(-1) / 2
    found = token_js(first, second)
    torch.testing.assert_close(found.double(), wanted, atol=1e-6, rtol=1e-5)
    found.sum().backward()
    assert second.grad.isfinite().all()


@pytest.mark.parametrize("far", [1.0, 300.0])
def test_divergence_from_one_token_is_right_where_its_probability_rounds_to_0(far):
    logits = torch.tensor([[[far, -far]]], requires_grad=True)
    found = js_to_token(logits, torch.tensor([[1]]))
    p = logits.detach().double().softmax(-1)[0, 0, 1]
    wanted = 0.5 * ((1 - p) * math.log(2) + torch.xlogy(p, 2 * p / (1 + p)) + torch.log(2 / (1 + p)))
    torch.testing.assert_close(found[0, 0].double(), wanted, atol=1e-6, rtol=1e-5)
    found.sum().backward()
    assert logits.grad.isfinite().all()


def test_a_mixture_of_laws_is_finite_where_both_round_to_0():
    first, second = torch.tensor([[[0.0, -300.0]]]), torch.tensor([[[0.0, -400.0]]])
    found = mixed_logprobs(first, second, 0.5)
    assert found.isfinite().all()
    torch.testing.assert_close(mixed_logprobs(first, second, 0.0), first.log_softmax(-1))
    torch.testing.assert_close(mixed_logprobs(first[..., :1] * 0 + first, second, 1.0), second.log_softmax(-1))
