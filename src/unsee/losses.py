"""Losses as pure functions.

Shapes: b batch, a answer positions (right-aligned), v vocabulary; padding has label -100.

Logits at index i predict the label at index i: the shift is done once, in `unsee.inference.answer_logits.answer_logits`.
All are computed in fp32.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, one_hot

IGNORE = -100
Reduction = Literal["token_mean", "sequence_sum"]
Direction = Literal["forward", "reverse"]


def token_logprobs(logits_bav: Tensor, labels_ba: Tensor) -> Tensor:
    """Return the log-probability of each label, 0 where the label is -100."""
    mask_ba = labels_ba != IGNORE
    index_ba1 = labels_ba.masked_fill(~mask_ba, 0).unsqueeze(-1)
    logits_bav = logits_bav.float()
    picked_ba = logits_bav.gather(-1, index_ba1).squeeze(-1) - logits_bav.logsumexp(-1)
    return picked_ba.masked_fill(~mask_ba, 0.0)


def per_sample(values_ba: Tensor, labels_ba: Tensor, reduction: Reduction = "token_mean") -> Tensor:
    """Return one value per sample: mean or sum over its answer tokens."""
    mask_ba = labels_ba != IGNORE
    total_b = values_ba.masked_fill(~mask_ba, 0.0).sum(-1)
    return total_b if reduction == "sequence_sum" else total_b / mask_ba.sum(-1)


def answer_nll(logits_bav: Tensor, labels_ba: Tensor, reduction: Reduction = "token_mean") -> Tensor:
    """Return the cross-entropy of the answers: mean over tokens, then over samples."""
    return -per_sample(token_logprobs(logits_bav, labels_ba), labels_ba, reduction).mean()


def ga_loss(
    logits_bav: Tensor, labels_ba: Tensor, reduction: Reduction = "token_mean", floor: float | None = None
) -> Tensor:
    """Return the gradient-ascent loss, the mean log-likelihood of the forget answers.

    Samples whose mean token log-likelihood is below `floor` contribute no gradient, only their value (PUBG, arXiv 2506.02541,
    `ga_floor`) [inferred].

    Args:
        logits_bav: Logits at answer positions.
        labels_ba: Forget answers.
        reduction: Mean or sum over an answer's tokens.
        floor: Mean token log-likelihood in nats below which a sample has no gradient; None = all have one.
    """
    logp_ba = token_logprobs(logits_bav, labels_ba)
    logp_b = per_sample(logp_ba, labels_ba, reduction)
    if floor is None:
        return logp_b.mean()
    alive_b = per_sample(logp_ba.detach(), labels_ba) >= floor
    return torch.where(alive_b, logp_b, logp_b.detach()).mean()


def npo_loss(logp_b: Tensor, start_b: Tensor, beta: float = 0.1) -> Tensor:
    """Return the NPO loss on per-sample *summed* log-likelihoods (arXiv 2404.05868, eq. 3).

    -(2/beta) E log sigmoid(-beta (log p - log p_start)); equals (2/beta) log 2 at the start.
    """
    return -(2 / beta) * logsigmoid(-beta * (logp_b - start_b)).mean()


def simnpo_loss(logp_b: Tensor, beta: float, margin: float = 0.0) -> Tensor:
    """Return the SimNPO loss on per-sample *mean* token log-likelihoods.

    -(2/beta) E log sigmoid(beta (-log p / T - margin)), arXiv 2410.07163, eq. 4. The margin stands inside the product with
    beta, as in open-unlearning [code].
    """
    return -(2 / beta) * logsigmoid(beta * (-logp_b - margin)).mean()


def dpo_loss(chosen_b: Tensor, rejected_b: Tensor, beta: float) -> Tensor:
    """Return the DPO loss on summed log-likelihoods relative to the reference model's.

    -(2/beta) E log sigmoid(beta (chosen - rejected)), arXiv 2305.18290, eq. 7; the factor 2/beta is open-unlearning's [code],
    the paper has 1.
    """
    return -(2 / beta) * logsigmoid(beta * (chosen_b - rejected_b)).mean()


def weighted_ga_loss(logits_bav: Tensor, labels_ba: Tensor, above: float, below: float = 0.0) -> Tensor:
    """Return the gradient-ascent loss with token weights p^above (1 - p)^below.

    The weights have no gradient. WGA (arXiv 2502.19301) has `below` 0, SatImp (arXiv 2505.11953) both.

    Args:
        logits_bav: Logits at answer positions.
        labels_ba: Forget answers.
        above: Exponent of p, which lowers the weight of tokens that are unlikely already.
        below: Exponent of 1 - p, which lowers the weight of near-certain tokens.
    """
    logp_ba = token_logprobs(logits_bav, labels_ba)
    p_ba = logp_ba.detach().exp()
    return per_sample(p_ba**above * (1 - p_ba) ** below * logp_ba, labels_ba).mean()


def undial_loss(start_bav: Tensor, logits_bav: Tensor, labels_ba: Tensor, gamma: float) -> Tensor:
    """Return the cross-entropy to the reference distribution, the true token lowered.

    UNDIAL (arXiv 2402.10052).

    Args:
        start_bav: Logits of the reference model.
        logits_bav: Logits of the trained model.
        labels_ba: Forget answers.
        gamma: Amount subtracted from the true token's logit in the target.
    """
    lowered_bav = _true_token(labels_ba, start_bav.shape[-1]) * -gamma + start_bav.float()
    cross_ba = -(lowered_bav.softmax(-1) * logits_bav.float().log_softmax(-1)).sum(-1)
    return per_sample(cross_ba, labels_ba).mean()


def ceu_loss(logits_bav: Tensor, labels_ba: Tensor) -> Tensor:
    """Return the cross-entropy to the model's own distribution without the true token.

    CEU (arXiv 2503.01224). The target has no gradient. The first token of an answer does not count, as in open-unlearning
    [code]; the only token of an answer does [inferred].
    """
    logits_bav = logits_bav.float()
    others_bav = logits_bav.detach().masked_fill(_true_token(labels_ba, logits_bav.shape[-1]).bool(), float("-inf"))
    cross_ba = -(others_bav.softmax(-1) * logits_bav.log_softmax(-1)).sum(-1)
    seen_ba = (labels_ba != IGNORE).cumsum(-1)
    later_ba = labels_ba.masked_fill((seen_ba == 1) & (seen_ba[:, -1:] > 1), IGNORE)
    return per_sample(cross_ba, later_ba).mean()


def logit_margin_loss(logits_bav: Tensor, labels_ba: Tensor) -> Tensor:
    """Return the squared distance of the largest logit from the mean, over answer tokens.

    PDU (arXiv 2506.05314). 0 at the uniform distribution only. open-unlearning averages over prompt and padding too [code];
    here only answers count.
    """
    logits_bav = logits_bav.float()
    return per_sample((logits_bav.amax(-1) - logits_bav.mean(-1)).square(), labels_ba).mean()


def squared_distance_loss(states_bad: Tensor, goal_bad: Tensor, labels_ba: Tensor) -> Tensor:
    """Return the mean squared difference of states and goals.

    RMU (arXiv 2403.03218), over width, answer tokens and samples. The paper's squared norm is `d` (the width) times this; the
    mean over the width is that of the published code [code].
    """
    return per_sample((states_bad.float() - goal_bad.float()).square().mean(-1), labels_ba).mean()


def js_to_token(logits_bav: Tensor, tokens_ba: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence from the one-token distribution, in nats.

    One value per position (arXiv 2509.02820).
    """
    logp_ba = token_logprobs(logits_bav, tokens_ba)
    p_ba = logp_ba.exp()
    middle_ba = torch.log1p(p_ba) - math.log(2)  # in logarithms, so that a probability that rounds to 0 has a gradient
    return 0.5 * ((1 - p_ba) * math.log(2) + p_ba * (logp_ba - middle_ba) - middle_ba)


def token_js(u_bav: Tensor, v_bav: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence of two distributions per position, in nats: at most log 2."""
    u_bav, v_bav = u_bav.float().log_softmax(-1), v_bav.float().log_softmax(-1)
    middle_bav = torch.logaddexp(u_bav, v_bav) - math.log(2)
    return (u_bav.exp() * (u_bav - middle_bav) + v_bav.exp() * (v_bav - middle_bav)).sum(-1) / 2


def _true_token(labels_ba: Tensor, vocabulary: int) -> Tensor:
    """Return 1 at the label of each position, 0 elsewhere and at padding."""
    mask_ba1 = (labels_ba != IGNORE).unsqueeze(-1)
    return one_hot(labels_ba.clamp_min(0), vocabulary).float() * mask_ba1


def token_kl(teacher_bav: Tensor, student_bav: Tensor, direction: Direction = "forward") -> Tensor:
    """Return full-vocabulary KL per position, forward = KL(teacher || student)."""
    u_bav, v_bav = teacher_bav.float().log_softmax(-1), student_bav.float().log_softmax(-1)
    if direction == "reverse":
        u_bav, v_bav = v_bav, u_bav
    return (u_bav.exp() * (u_bav - v_bav)).sum(-1)


def kl_loss(
    teacher_bav: Tensor,
    student_bav: Tensor,
    labels_ba: Tensor,
    direction: Direction = "forward",
    reduction: Reduction = "token_mean",
) -> Tensor:
    """Return the KL averaged over answer tokens, then over samples.

    Prompt, image and padding do not count.

    Args:
        teacher_bav: Logits of the teacher, at the same positions.
        student_bav: Logits of the trained model.
        labels_ba: Labels, used only to tell answer tokens from padding.
        direction: forward = KL(teacher || student), reverse = KL(student || teacher).
        reduction: Mean or sum over an answer's tokens.
    """
    return per_sample(token_kl(teacher_bav, student_bav, direction), labels_ba, reduction).mean()


def dual_masked_kl(
    teacher_bav: Tensor,
    student_bav: Tensor,
    kept_ba: Tensor,
    allowed_v: Tensor,
    reduction: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """Return KL(teacher || student) at kept positions (K_S) over allowed entries (K_V) only.

    Nothing is renormalised, so that descent lowers the entries left out, and the value can be negative. "mean" divides by
    the number of kept positions [inferred], "sum" is what the paper prints.

    Args:
        teacher_bav: Logits of the original model.
        student_bav: Logits of the trained model.
        kept_ba: 1 at the positions that count (K_S), else 0.
        allowed_v: 1 at the vocabulary entries that count (K_V), else 0.
        reduction: Mean over the kept positions, or sum.
    """
    u_bav, v_bav = teacher_bav.float().log_softmax(-1), student_bav.float().log_softmax(-1)
    kl_ba = (allowed_v * u_bav.exp() * (u_bav - v_bav)).sum(-1)
    total = (kl_ba * kept_ba).sum()
    return total if reduction == "sum" else total / kept_ba.sum().clamp(min=1)


def released_masked_cross(teacher_bav: Tensor, student_bav: Tensor, kept_ba: Tensor, allowed_v: Tensor) -> Tensor:
    """Return the second term of SIU's released trainer, a wrongly normalised cross-entropy.

    About |V| times smaller than a divergence per token. For comparison with published numbers only.

    Args:
        teacher_bav: Logits of the original model.
        student_bav: Logits of the trained model.
        kept_ba: 1 at the positions that count (K_S), else 0.
        allowed_v: 1 at the vocabulary entries that count (K_V), else 0.
    """
    p_bav, q_bav = allowed_v * teacher_bav.float().softmax(-1), allowed_v * student_bav.float().softmax(-1)
    cross_ba = -(p_bav * (q_bav + 1e-12).log()).sum(-1)
    return (cross_ba * kept_ba).sum() / (kept_ba.sum() * allowed_v.numel()).clamp(min=1)
