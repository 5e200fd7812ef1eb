"""Task vector negation: learn the forget set, then subtract what was learned (arXiv 2212.04089).

Ilharco et al., section 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn import Module

from unsee.api import Group, Method, Needs, Session
from unsee.errors import UserError
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import Batch
from unsee.losses import answer_nll
from unsee.training.targets import forget_targets
from unsee.training.trainable import trainable
from unsee.training.trainer import Parts, minimise


@dataclass(frozen=True, kw_only=True)
class TaskVector(Method):
    """Fine-tune on the forget answers, and move the weights the other way: w = w_0 - scale (w_forget - w_0)."""

    group: ClassVar[Group] = "weights"

    scale: float = 1.0
    """Length of the step away, as a multiple of the fine-tuning's."""

    def __post_init__(self) -> None:
        """Reject a scale that forgets nothing."""
        super().__post_init__()
        if self.scale <= 0:
            raise UserError(f"method.scale must be above 0, got {self.scale}.")

    def needs(self) -> Needs:
        """Return the memory requirements: full tuning keeps the weights before it."""
        return Needs(beside=4.0, stops=False)

    def unlearn(self, session: Session) -> None:
        """Learn the forget answers, then negate the change.

        `training.stop` does not apply, for nothing is forgotten while learning.
        """
        if session.training.adapter:
            raise UserError(
                "task_vector negates a whole adapter, so it cannot go on from another one. Leave training.adapter out, and "
                "give the earlier run as the model."
            )
        if session.training.guard != "none":
            raise UserError(
                "training.guard looks at the model while task_vector learns the forget set, not at the one that is left when it is "
                "subtracted. Leave training.guard out; a smaller method.scale harms less."
            )
        start_weights = {} if isinstance(session.model, PeftModel) else _weight_copies(session.model)
        learner = replace(session, training=replace(session.training, stop="never"))

        def objective(forget: Batch, _: Batch | None) -> Iterator[Parts]:
            forget_nll = answer_nll(*answer_logits(learner.model, forget))
            yield {"loss": forget_nll, "forget_nll": forget_nll}

        minimise(learner, objective, forget=forget_targets(session))
        session.model = learner.model
        negate(session.model, start_weights, self.scale)


def negate(model: Module, start_weights: Mapping[str, Tensor], scale: float) -> None:
    """Replace every change of a weight by -scale times itself.

    Args:
        model: A model with LoRA, where B is scaled, so that the update B A is; or one with all weights trained.
        start_weights: Trained weights before training, by name; not used with LoRA, whose change is the adapter.
        scale: Factor of the step away.
    """
    with torch.no_grad():
        for name, weight in trainable(model).items():
            if ".lora_B." in name:
                weight.mul_(-scale)
            elif name in start_weights:
                start = start_weights[name].to(weight.device)
                weight.copy_(start - scale * (weight - start))


def _weight_copies(model: Module) -> dict[str, Tensor]:
    """Return copies of the trained weights on the CPU."""
    return {name: weight.detach().cpu().clone() for name, weight in trainable(model).items()}
