"""Membership: inference of training pictures of the forget set (arXiv 2112.03570).

Shapes: a answer tokens, v vocabulary.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Literal, Self

import torch
from torch import Tensor

from unsee.api import VLM, Attack, Example, Finding, Role, Victim
from unsee.api.finite import require_values
from unsee.errors import UserError
from unsee.evaluation.recovery import NOT_FINITE, ask, finding, limit_rows, probed_rows, question_key
from unsee.evaluation.teacher_forcing import Fed, answer_logits, teacher_forced, token_logprobs
from unsee.models import builtin
from unsee.models.steering.hooks import left_off

Score = Literal["loss", "zlib", "min-k", "min-k++", "gradient", "reference"]
_ALL: Final[tuple[Score, ...]] = ("loss", "zlib", "min-k", "min-k++", "gradient", "reference")


@dataclass(frozen=True, kw_only=True)
class Membership(Attack):
    """Compare scores of answers to training and to held-out pictures of the same entities.

    The reported share is that of training rows above all but `false_alarms` of the held-out rows; `auc` is reported too. The
    gold model has seen neither, so an excess over gold is not due to harder pictures.

    Scores: mean log-probability; the sum over the length of the zlib-compressed answer (arXiv 2012.07805); the mean of the
    least likely tokens (Min-K, arXiv 2310.16789), standardised over the vocabulary (Min-K++, arXiv 2404.02936); minus the norm
    of the loss's gradient (arXiv 2402.17012); the mean log-probability above a reference model's (arXiv 2112.03570).
    """

    needs: ClassVar[Literal["answers", "weights"]] = "weights"
    finds: ClassVar[Literal["answers", "traces"]] = "traces"

    scores: tuple[Score, ...] = _ALL
    """Scores; `reference` only with a reference model."""
    lowest: float = 0.2
    """Share of the tokens that Min-K and Min-K++ take."""
    false_alarms: float = 0.01
    """Share of held-out rows that may lie above the threshold; published: 0.01."""
    reference: str = ""
    """Reference model: folder, hub id or packaged model; empty = leave that score out."""
    images: int = 4
    """Pictures per entity and question on each side; 0 = all."""

    def __post_init__(self) -> None:
        """Reject shares that leave no token or no threshold."""
        super().__post_init__()
        require_values(self, "attack", scores=None, images=0)
        if not 0 < self.lowest <= 1 or not 0 <= self.false_alarms < 1:
            raise UserError("attack.lowest must lie in (0, 1] and attack.false_alarms in [0, 1).")

    def idle(self) -> Iterator[tuple[str, str]]:
        """Yield the settings without effect beside the others."""
        if not self.reference and set(self.scores) == {"reference"}:
            yield "attack.scores", "with attack.reference"
        if "reference" not in self.scores:
            yield "attack.reference", "with attack.scores that name reference"
        if not {"min-k", "min-k++"} & set(self.scores):
            yield "attack.lowest", "with attack.scores that name min-k or min-k++"

    def named_models(self) -> Iterator[str]:
        """Yield the reference model, if there is one."""
        if self.reference and "reference" in self.scores:
            yield self.reference

    def quick(self) -> Self:
        """Return the scores without gradients, on two pictures."""
        return replace(self, scores=tuple(score for score in self.scores if score != "gradient"), images=2)

    def run(self, victim: Victim) -> Iterator[Finding]:
        """Score both sides once, and compare them by every score."""
        nonmembers, members = self._sides(victim)
        loaded, reference = victim.open(), self._reference()
        texts = [answer.text for answer in ask(loaded, limit_rows(nonmembers, 1))]
        scores = [score for score in self.scores if score != "reference" or reference is not None]
        row_scores = [self._row_scores(loaded, reference, row, scores) for row in (*members, *nonmembers)]
        for score in scores:
            member_scores_n, nonmember_scores_n = (
                [values[score] for values in side] for side in (row_scores[: len(members)], row_scores[len(members) :])
            )
            if all(map(math.isfinite, (*member_scores_n, *nonmember_scores_n))):
                hits: Sequence[bool | None] = above(member_scores_n, nonmember_scores_n, self.false_alarms)
                further = {"auc": auc(member_scores_n, nonmember_scores_n)}
            else:  # every comparison with NaN is False, which would read as "nothing is left"
                hits, further = [None] * len(members), {NOT_FINITE: 1.0}
            yield finding(score, members, hits, texts, further={**further, **left_off(loaded.model)})

    def _sides(self, victim: Victim) -> tuple[list[Example], list[Example]]:
        """Return held-out rows and the training rows with the same questions and entities."""
        rows = [row for row in probed_rows(victim.benchmark, self.images) if row.role == Role.UNSEEN and row.answer]
        nonmembers = [row for row in rows if row.image]
        question_keys = set(map(question_key, nonmembers))
        training_rows = [row for row in victim.benchmark.examples("train") if row.role == Role.FORGET and row.image]
        members = limit_rows(
            [row for row in training_rows if question_key(row) in question_keys and row.answer], self.images
        )
        training_images = {row.image.key for row in training_rows if row.image is not None}
        if overlap := next(
            (row for row in nonmembers if row.image is not None and row.image.key in training_images), None
        ):
            raise UserError(
                f"The held-out row {overlap.id!r} has a picture of the training data: membership cannot be told."
            )
        if not members:
            raise UserError(
                "Membership needs the same questions about training and about held-out pictures of the forget set."
            )
        member_keys = set(map(question_key, members))
        return [row for row in nonmembers if question_key(row) in member_keys], members

    def _reference(self) -> Any:
        from unsee.models.checkpoint import open_model

        return next((open_model(builtin.resolve(model)) for model in self.named_models()), None)

    def _row_scores(self, loaded: VLM, reference: Any, row: Example, names: Sequence[Score]) -> Mapping[str, float]:
        """Return the scores of a row. Larger values are more typical of training rows."""
        fed_row = teacher_forced(loaded, row)
        with torch.no_grad():
            scores = _token_scores(answer_logits(loaded.model, fed_row), fed_row, row.answer, self.lowest)
            if reference is not None:
                reference_row = teacher_forced(reference, row)
                scores["reference"] = scores["loss"] - float(
                    token_logprobs(answer_logits(reference.model, reference_row), reference_row).mean()
                )
        if "gradient" in names:
            scores["gradient"] = -_gradient_norm(loaded.model, fed_row)
        return scores


def _token_scores(logits_av: Tensor, row: Fed, answer: str, lowest: float) -> dict[str, float]:
    """Return the scores that the answer's logits give. Tokens of probability 0 do not count in Min-K++."""
    logp_av = logits_av.log_softmax(-1)
    logp_a = token_logprobs(logits_av, row)
    p_av = logp_av.exp()
    held_logp_av = logp_av.masked_fill(p_av == 0, 0.0)  # a masked token has -inf, and 0 * inf is no number
    mean_a = (p_av * held_logp_av).sum(-1)
    spread_a = ((p_av * held_logp_av.square()).sum(-1) - mean_a.square()).clamp_min(1e-12).sqrt()
    count = max(1, int(lowest * len(logp_a)))
    return {
        "loss": float(logp_a.mean()),
        "zlib": float(logp_a.sum()) / len(zlib.compress(answer.encode())),
        "min-k": float(logp_a.sort().values[:count].mean()),
        "min-k++": float(((logp_a - mean_a) / spread_a).sort().values[:count].mean()),
    }


def above(member_scores: Sequence[float], nonmember_scores: Sequence[float], false_alarms: float) -> list[bool]:
    """Tell which member scores exceed all but a share `false_alarms` of the others.

    >>> above([3.0, 1.0, 2.0], [0.0, 2.0, 1.0], 0.01), above([3.0, 1.0, 2.0], [0.0, 2.0, 1.0], 0.34)
    ([True, False, False], [True, False, True])
    """
    threshold = sorted(nonmember_scores, reverse=True)[int(false_alarms * len(nonmember_scores))]
    return [score > threshold for score in member_scores]


def auc(member_scores: Sequence[float], nonmember_scores: Sequence[float]) -> float:
    """Return the share of pairs in which the member score is larger. Ties count half.

    >>> auc([2.0, 3.0], [1.0, 2.0])
    0.875
    """
    pairs = [
        (member > nonmember) + (member == nonmember) / 2 for member in member_scores for nonmember in nonmember_scores
    ]
    return sum(pairs) / len(pairs)


def _gradient_norm(model: Any, row: Fed) -> float:
    """Return the norm of the gradient of the mean loss in all floating-point weights."""
    weights = [weight for weight in model.parameters() if weight.is_floating_point()]
    for weight in weights:
        weight.requires_grad_(requires_grad=True)
    loss = -token_logprobs(answer_logits(model, row), row).mean()
    gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    return float(
        torch.stack([gradient.float().square().sum() for gradient in gradients if gradient is not None]).sum().sqrt()
    )
