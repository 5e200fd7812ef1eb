"""Membership: can training pictures of the forget set be told from held-out ones (arXiv 2112.03570)?

Shapes: a answer tokens, v vocabulary.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Literal, Self

import torch
from torch import Tensor

from unsee.api import VLM, Attack, Example, Finding, Role, Victim
from unsee.errors import UserError
from unsee.evaluation.recovery import ask, finding, probed_rows, thinned
from unsee.evaluation.teacher_forcing import Fed, answer_logits, fed, token_logprobs
from unsee.models import builtin
from unsee.models.steering.hooks import left_off

Score = Literal["loss", "zlib", "min-k", "min-k++", "gradient", "reference"]
_ALL: Final[tuple[Score, ...]] = ("loss", "zlib", "min-k", "min-k++", "gradient", "reference")


@dataclass(frozen=True, kw_only=True)
class Membership(Attack):
    """Score the reference answers to training and to held-out pictures of the same entities, and compare.

    What comes back is the share of training rows above all but `false_alarms` of the held-out rows; `auc` stands beside it. The
    gold model has seen neither, so that what lies above it is no matter of harder pictures.

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
        if not 0 < self.lowest <= 1 or not 0 <= self.false_alarms < 1:
            raise UserError("attack.lowest must lie in (0, 1] and attack.false_alarms in [0, 1).")

    def quick(self) -> Self:
        """Return the scores without gradients, on two pictures."""
        return replace(self, scores=tuple(score for score in self.scores if score != "gradient"), images=2)

    def run(self, victim: Victim) -> Iterator[Finding]:
        """Score both sides once, and compare them by every score."""
        outside, members = self._sides(victim)
        loaded, beside = victim.open(), self._reference()
        texts = [answer.text for answer in ask(loaded, thinned(outside, 1))]
        wanted = [score for score in self.scores if score != "reference" or beside is not None]
        known = [self._scored(loaded, beside, row, wanted) for row in (*members, *outside)]
        for score in wanted:
            inside_n, outside_n = (
                [values[score] for values in part] for part in (known[: len(members)], known[len(members) :])
            )
            hits = above(inside_n, outside_n, self.false_alarms)
            further = {"auc": auc(inside_n, outside_n), **left_off(loaded.model)}
            yield finding(score, members, hits, texts, further=further)

    def _sides(self, victim: Victim) -> tuple[list[Example], list[Example]]:
        """Return held-out rows and the training rows with the same questions about the same entities."""
        rows = [row for row in probed_rows(victim.benchmark, self.images) if row.role == Role.UNSEEN and row.answer]
        outside = [row for row in rows if row.image]
        asked = set(map(_asked, outside))
        known = [row for row in victim.benchmark.examples("train") if row.role == Role.FORGET and row.image]
        members = thinned([row for row in known if _asked(row) in asked and row.answer], self.images)
        seen = {row.image.key for row in known if row.image is not None}
        if both := next((row for row in outside if row.image is not None and row.image.key in seen), None):
            raise UserError(
                f"The held-out row {both.id!r} has a picture of the training data: membership cannot be told."
            )
        if not members:
            raise UserError(
                "Membership needs the same questions about training and about held-out pictures of the forget set."
            )
        both_sides = set(map(_asked, members))
        return [row for row in outside if _asked(row) in both_sides], members

    def _reference(self) -> Any:
        if not self.reference or "reference" not in self.scores:
            return None
        from unsee.models.checkpoint import open_model

        return open_model(builtin.resolve(self.reference))

    def _scored(self, loaded: VLM, beside: Any, row: Example, wanted: Sequence[Score]) -> Mapping[str, float]:
        """Return the scores of a row, larger for what looks more like a training row."""
        given = fed(loaded, row)
        with torch.no_grad():
            scores = _token_scores(answer_logits(loaded.model, given), given, row.answer, self.lowest)
            if beside is not None:
                other = fed(beside, row)
                scores["reference"] = scores["loss"] - float(
                    token_logprobs(answer_logits(beside.model, other), other).mean()
                )
        if "gradient" in wanted:
            scores["gradient"] = -_gradient_norm(loaded.model, given)
        return scores


def _asked(row: Example) -> tuple[str, str, str]:
    return row.entity, row.kind, row.fact


def _token_scores(logits_av: Tensor, row: Fed, answer: str, lowest: float) -> dict[str, float]:
    """Return the scores that the answer's logits give."""
    logp_av = logits_av.log_softmax(-1)
    logp_a = token_logprobs(logits_av, row)
    mean_a = (logp_av.exp() * logp_av).sum(-1)
    spread_a = ((logp_av.exp() * logp_av.square()).sum(-1) - mean_a.square()).clamp_min(1e-12).sqrt()
    count = max(1, int(lowest * len(logp_a)))
    return {
        "loss": float(logp_a.mean()),
        "zlib": float(logp_a.sum()) / len(zlib.compress(answer.encode())),
        "min-k": float(logp_a.sort().values[:count].mean()),
        "min-k++": float(((logp_a - mean_a) / spread_a).sort().values[:count].mean()),
    }


def above(inside: Sequence[float], outside: Sequence[float], false_alarms: float) -> list[bool]:
    """Tell which scores lie above all but this share of the others.

    >>> above([3.0, 1.0, 2.0], [0.0, 2.0, 1.0], 0.01), above([3.0, 1.0, 2.0], [0.0, 2.0, 1.0], 0.34)
    ([True, False, False], [True, False, True])
    """
    threshold = sorted(outside, reverse=True)[int(false_alarms * len(outside))]
    return [score > threshold for score in inside]


def auc(inside: Sequence[float], outside: Sequence[float]) -> float:
    """Return the share of pairs in which the first is larger. Ties count half.

    >>> auc([2.0, 3.0], [1.0, 2.0])
    0.875
    """
    pairs = [(one > other) + (one == other) / 2 for one in inside for other in outside]
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
