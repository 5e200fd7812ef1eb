"""PDU: flatten the logits of forget answers, retain loss bounded (arXiv 2506.05314).

Primal-dual unlearning of Entesari et al.; code in https://github.com/locuslab/open-unlearning, `src/trainer/unlearn/pdu.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from unsee.api import Method, Needs, Session, Training
from unsee.errors import UserError
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import Batch
from unsee.losses import answer_nll, logit_margin_loss
from unsee.training.batch_plan import Plan
from unsee.training.targets import forget_targets, retain_targets
from unsee.training.trainer import Parts, minimise, plan_batches, required
from unsee.utils.terminal import note_once


@dataclass(frozen=True, kw_only=True)
class PDU(Method):
    """Flatten the logits of the forget answers, with the retain loss held below a bound by a dual variable."""

    forget_weight: float = 1.0
    """Weight of the flattening."""
    retain_weight: float = 1.0
    """First value of the dual variable, the weight of the cross-entropy on the retain answers."""
    retain_bound: float = 0.0
    """Epsilon: the dual variable rises while the retain cross-entropy is above it, and falls below it [code]."""
    dual_step: float = 1.0
    """Step size of the dual variable; 0 = fixed weight."""
    dual_warmup_epochs: float = 5.0
    """Passes over the forget examples before the dual variable first moves."""

    def __post_init__(self) -> None:
        """Reject steps below 0."""
        super().__post_init__()
        for name in ("dual_step", "dual_warmup_epochs"):
            if getattr(self, name) < 0:
                raise UserError(f"method.{name} must not be negative, got {getattr(self, name)}.")

    def needs(self) -> Needs:
        """Return the memory requirements of a step."""
        return Needs(retain=1)

    def idle(self, training: Training) -> Iterator[tuple[str, str]]:  # noqa: ARG002 - the contract
        """Yield the settings without effect beside the others."""
        if not self.dual_step:
            for name in ("retain_bound", "dual_warmup_epochs"):
                yield f"method.{name}", "with method.dual_step above 0"

    def unlearn(self, session: Session) -> None:
        """Minimise both terms, and move the dual variable after every step."""

        def objective(forget: Batch, retain: Batch | None) -> Iterator[Parts]:
            margin = logit_margin_loss(*answer_logits(session.model, forget))
            yield {"loss": self.forget_weight * margin, "logit_margin": margin}
            dual = self._dual(session)
            retain_nll = answer_nll(*answer_logits(session.model, required(retain)))
            dual_tensor = torch.tensor(dual, dtype=torch.float64)
            yield {
                "loss": dual * (retain_nll - self.retain_bound),
                "retain_nll": retain_nll,
                "retain_dual": dual_tensor,
            }

        targets, retain_answers = forget_targets(session), retain_targets(session)
        self._tell_unmoved(plan_batches(session, targets, retain_answers))
        minimise(session, objective, forget=targets, retain=retain_answers)

    def _tell_unmoved(self, plan: Plan) -> None:
        """Tell that the dual variable never moves, where the run ends before the warm-up does."""
        if self.dual_step and plan.forget and plan.epoch_at(plan.steps - 1) < self.dual_warmup_epochs:
            note_once(
                f"pdu: the dual variable stays {self.retain_weight:g}, for the run ends after {plan.epoch_at(plan.steps):.1f} epochs and "
                f"method.dual_warmup_epochs is {self.dual_warmup_epochs:g}. Set fewer, or more steps."
            )

    def _dual(self, session: Session) -> float:
        """Return the dual variable after the last logged step, so that a resumed run has the same.

        lambda <- max(0, lambda + step * (retain cross-entropy - epsilon)), once per optimizer step; the published code does
        it once per batch [inferred].
        """
        if not session.history:
            return self.retain_weight
        last_step = session.history[-1]
        dual = float(last_step["retain_dual"])
        if last_step["epoch"] < self.dual_warmup_epochs:
            return dual
        return max(0.0, dual + self.dual_step * (float(last_step["retain_nll"]) - self.retain_bound))
