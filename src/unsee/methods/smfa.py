"""Sculpted memory forgetting adapter (SMFA, arXiv 2511.20196): masked update of refusals.

An adapter learns to refuse; the entries of its update that are large and oppose an adapter of the retain rows are dropped.
The mask is the paper's [second-hand]; the number of retain rows and their weight are ours [inferred].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

import torch
from peft import PeftModel, get_peft_model_state_dict
from torch import Tensor
from torch.linalg import vector_norm

from unsee.api import Group, Method, Needs, Session, Trial
from unsee.api.request import Target
from unsee.distributed import processes
from unsee.errors import UserError
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import Batch
from unsee.losses import answer_nll
from unsee.methods.common.refusal_targets import refusal_targets
from unsee.training.targets import retain_targets
from unsee.training.trainable import trainable
from unsee.training.trainer import Parts, minimise, prepare, retain_term
from unsee.utils.files import owned_folder, remove_folder
from unsee.utils.grouping import evenly

EPS: Final = 1e-8
WRAPPED: Final = "base_model.model."
LOW: Final = ".lora_A.weight"
HIGH: Final = ".lora_B.weight"
"""Parts of the names that peft gives to the factors of an adapter."""


@dataclass(frozen=True, kw_only=True)
class SMFA(Method):
    """Add a refusal adapter's update, without large entries that oppose a retain adapter's.

    Both adapters have `training.rank` and `training.alpha` (16 and 16 in the paper [second-hand]). What is left of the update has
    no low rank, so it is written into the weights, which takes `--tune full`.
    """

    group: ClassVar[Group] = "weights"
    trial: ClassVar[Trial] = Trial(tunes=("full",))

    k: float = 5.0
    """Entries against the anchor are dropped where they are more than k times its size, both relative to their matrix; 5 with
    pictures, 10 for text [second-hand]."""
    few: int = 32
    """Retain rows, evenly spread, on which both adapters are trained [inferred]."""
    refusals: str = ""
    """Text file with one refusal per line, or SafeEraser's prompt.json; empty = the built-in list."""

    def __post_init__(self) -> None:
        """Reject values that no run could use."""
        super().__post_init__()
        if self.k < 0 or self.few < 1:
            raise UserError(f"smfa needs method.k >= 0 and method.few >= 1, got {self.k} and {self.few}.")

    def needs(self) -> Needs:
        """Return the memory requirements of a step."""
        return Needs(retain=1, adapters=True, full_weights="adds an update to the base's weights")

    def unlearn(self, session: Session) -> None:
        """Train both adapters, and write what the mask leaves of the first into the weights."""
        _require_usable(session)
        retain_answers = list(evenly(retain_targets(session), self.few))
        refusal_updates = _learn_updates(session, refusal_targets(session, self.refusals), retain_answers)
        if "stop_reason" in session.notes:  # of weights that are not the result
            session.notes["stop_reason"] = f"refusal adapter, before its mask: {session.notes['stop_reason']}"
        anchor_updates = _learn_updates(_aside(session), retain_answers, ())
        if processes.is_main():
            remove_folder(session.out / "work" / "anchor")
        dropped_count = 0
        with torch.no_grad():
            for name, update in refusal_updates.items():
                weight: Any = session.model.get_submodule(name).weight
                learned = update.matrix()
                change = sculpted(learned, anchor_updates[name].matrix(), self.k)
                dropped_count += int((change != learned).sum())
                weight.add_(change.to(weight))
        session.notes["smfa"] = {"retain_rows": len(retain_answers), "dropped": dropped_count}


@dataclass(frozen=True)
class _Update:
    """Update of one matrix, as the factors of its adapter."""

    low: Tensor
    high: Tensor
    scale: float

    def matrix(self) -> Tensor:
        """Return the matrix."""
        return self.scale * self.high @ self.low


def sculpted(update: Tensor, anchor: Tensor, k: float) -> Tensor:
    """Return the update without its entries that oppose the anchor and are much larger.

    An entry is dropped where dW_a dW_f < 0 and k rho |dW_a| < |dW_f|, rho = ||dW_f|| / (||dW_a|| + eps).
    """
    rho = vector_norm(update) / (vector_norm(anchor) + EPS)
    opposing = (anchor * update < 0) & (k * rho * anchor.abs() < update.abs())
    return update.masked_fill(opposing, 0)


def _learn_updates(
    session: Session, targets: Sequence[Target], retain_answers: Sequence[Target]
) -> Mapping[str, _Update]:
    """Train an adapter, remove it, and return its update of each matrix."""
    base, trained_names = session.model, trainable(session.model).keys()
    training = replace(session.training, tune="lora")
    adapted_model = prepare(base, session.family, training, session.seed)
    learner = replace(session, vlm=replace(session.vlm, model=adapted_model), training=training)

    def objective(forget: Batch, retain: Batch | None) -> Iterator[Parts]:
        target_nll = answer_nll(*answer_logits(learner.model, forget))
        yield {"loss": target_nll, "target_nll": target_nll}
        yield from retain_term(learner, retain, 1.0)

    minimise(learner, objective, forget=targets, retain=retain_answers)
    updates = _updates(learner.model, training.alpha / training.rank)
    peft_model: Any = learner.model
    peft_model.unload()
    for name, weight in base.named_parameters():
        weight.requires_grad_(name in trained_names)
    return updates


def _updates(adapted: Any, scale: float) -> dict[str, _Update]:
    """Return copies of the adapter's factors by the name of the matrix."""
    factors = {name: factor.detach().clone() for name, factor in get_peft_model_state_dict(adapted).items()}
    names = [name.removesuffix(LOW) for name in factors if name.endswith(LOW)]
    return {
        name.removeprefix(WRAPPED): _Update(factors[f"{name}{LOW}"], factors[f"{name}{HIGH}"], scale) for name in names
    }


def _aside(session: Session) -> Session:
    """Return the session for the anchor, without stop rule, callbacks and record."""
    training = replace(session.training, stop="never", guard="none", robust="none", report_to=())
    folder = owned_folder(session.out / "work" / "anchor")
    return replace(session, training=training, out=folder, callbacks=(), history=[], notes={})


def _require_usable(session: Session) -> None:
    """Raise for adapters, which cannot hold the result, and for sharded weights."""
    if session.training.tune == "lora" or isinstance(session.model, PeftModel):
        raise UserError(
            "smfa masks the update of its adapters entry by entry, and what is left fits no adapter. Set --tune full (training: "
            "{tune: full}); training.rank and training.alpha are those of its adapters."
        )
    if processes.sharding() != "none":
        raise UserError(
            "smfa masks whole matrices and cannot do so where they are spread over processes (FSDP, ZeRO-3). Use several "
            "processes with a model each (configs/ddp.yaml), or one process."
        )
