"""MMUnlearner (arXiv 2502.11051): saliency-masked gradient ascent beside descent on what stays, per mmunlearner.md.

Settings marked [inferred] are ours where the authors are silent, or where their code departs from their formulas.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from peft import PeftModel
from torch import Tensor

from unsee.api import Method, Part, Role, Session
from unsee.batching import Batch, Target, answer_logits
from unsee.errors import UserError
from unsee.losses import answer_nll
from unsee.masks import Mask
from unsee.saliency import Sweep, saliency_mask
from unsee.training import minimise, retain_term


@dataclass(frozen=True, kw_only=True)
class MMUnlearner(Method):
    """g = -alpha m * grad CE(forget images) + grad CE(retain images); m keeps weights that matter more for the former."""

    gamma: float = 1.0
    """Threshold of the mask: kept where F_T > gamma F_P; searched in {0.5, 1, 2} (mmunlearner.md 2)."""
    alpha: float = 1.0
    """Weight of the forget gradient (released default)."""
    retain_ratio: int = 1
    """Rho, retain batches per forget batch [inferred]; the released code has the ratio of the data, 19 at 5 %."""
    retain: tuple[Literal["retain", "retain_text", "forget_text", "stranger", "general"], ...] = ("retain",)
    """Roles that are descended on; the paper: retain images alone, text questions never (mmunlearner.md 1)."""
    modules: tuple[Part, ...] = ()
    """Parts that get a mask: vision, projector, language; empty = those that are trained [inferred]. Released: language."""
    also: tuple[str, ...] = ()
    """Ends of names of norms, embeddings or heads that get a mask too; without one their forget gradient is 0 [inferred]."""
    p_samples: int = 300
    """Samples of T and of P behind the mask, at most [inferred]; released: all."""
    tolerance: float = 0.005
    """Stop the sweep when fewer than this share of the mask's bits flip per 50 samples; 0 = use all [inferred]."""
    granularity: Literal["sample", "batch"] = "sample"
    """Square each sample's gradient (the formula), or that of a batch of 4 (released)."""
    mask: Literal["saliency", "random"] = "saliency"
    """random = as many weights of each tensor, drawn by the seed: a control."""

    def __post_init__(self) -> None:
        """Refuse values that no run could use."""
        if self.retain_ratio < 1:
            raise UserError(f"method.retain_ratio must be at least 1, got {self.retain_ratio}.")
        self._sweep(0)

    def unlearn(self, session: Session) -> None:
        """Make the mask, then take joint steps."""
        _require_full(session)
        found = saliency_mask(session, self._sweep(session.seed), modules=self.modules, also=self.also)
        mask = found.shuffled(session.seed) if self.mask == "random" else found
        session.notes["mask"] = {**mask.report(), "used": mask.facts["used"], "curve": mask.facts["curve"]}
        self._joint(session, mask)

    def _joint(self, session: Session, mask: Mask) -> None:
        """One step for both gradients: mask, add, clip, AdamW."""

        def objective(forget: Batch, retain: Batch | None) -> Iterator[dict[str, Tensor]]:
            with mask.applied(session.model):
                forget_nll = answer_nll(*answer_logits(session.model, forget))
                yield {"loss": -self.alpha * forget_nll, "forget_nll": forget_nll}
            yield from retain_term(session, retain, 1.0)

        forget, retain = _forget(session), self._retain(session)
        minimise(session, objective, forget=forget, retain=retain, separate=True, retain_ratio=self.retain_ratio)

    def _retain(self, session: Session) -> list[Target]:
        found = [Target(example=example) for example in session.of(*map(Role, self.retain))]
        if not found:
            raise UserError(
                f"mmunlearner trains on what is to stay beside what is to go, but the data have no example of the roles "
                f"{', '.join(self.retain)}; add some, or name others in method.retain."
            )
        return found

    def _sweep(self, seed: int) -> Sweep:
        return Sweep(
            gamma=self.gamma,
            granularity=self.granularity,
            samples=self.p_samples,
            tolerance=self.tolerance,
            seed=seed,
        )


def _require_full(session: Session) -> None:
    if session.training.tune == "lora" or isinstance(session.model, PeftModel):
        raise UserError(
            "mmunlearner masks the gradients of the model's own weights; with training.tune=lora there are only adapters, "
            "which no mask fits. Set --tune full (training: {tune: full}), and --parts for the parts to train."
        )


def _forget(session: Session) -> list[Target]:
    """Return T: questions about seen forget images; text questions are never trained on (mmunlearner.md 1)."""
    return [Target(example=example) for example in session.of(Role.FORGET) if example.image is not None]
