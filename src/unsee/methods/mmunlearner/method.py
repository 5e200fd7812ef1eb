"""MMUnlearner, saliency-masked gradient ascent with a retain term (arXiv 2502.11051).

Settings marked [inferred] are ours where the authors are silent, or where their code departs from their formulas.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Literal

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from unsee.api import Group, Method, Needs, Part, Promise, Role, Session, Training, Trial
from unsee.api.request import Target
from unsee.api.training import Tune
from unsee.distributed import processes
from unsee.errors import TrainingError, UserError
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import Batch
from unsee.losses import answer_nll
from unsee.methods.common.published import require_unset
from unsee.methods.mmunlearner.masks import Mask
from unsee.methods.mmunlearner.released import Like, Released
from unsee.methods.mmunlearner.saliency import Sweep, maskable, saliency_mask
from unsee.methods.mmunlearner.text_questions import TEXTS, Source, with_texts
from unsee.training.loop import make_schedule
from unsee.training.targets import own_answers
from unsee.training.trainable import trainable
from unsee.training.trainer import minimise, plan_batches, retain_term
from unsee.utils.files import remove_folder

OURS: Final = ("mask", "update", "retain_ratio", "retain", "also", "granularity", "p_samples", "tolerance")
"""Settings that the published code does not know."""
OURS_IN_TRAINING: Final = (
    "guard",
    "robust",
    "accumulate",
    "clip",
    "warmup_steps",
    "weight_decay",
    "precision",
    "report_to",
)
"""Those of `training`; `stop` has no effect, the rate is constant."""
UNREAD_IN_TRAINING: Final = ("by_image", "check_every", "checkpoint_every", "max_new_tokens")
"""Those of `training` that the published loop does not read, and that data may suggest."""


@dataclass(frozen=True, kw_only=True)
class MMUnlearner(Method):
    """g = -alpha m * grad CE(forget images) + grad CE(retain images), masked by saliency."""

    group: ClassVar[Group] = "weights"
    trial: ClassVar[Trial] = Trial(tunes=("full",))
    promise: ClassVar[Promise] = "picture"

    mode: Literal["fixed", "as_released"] = "fixed"
    """fixed = the method; as_released = the published code, defects included, for comparison: all steps at a constant rate; what it
    does not know (mask, update, retain, guard, clip, accumulate, ...) is refused."""
    update: Literal["joint", "alternating"] = "joint"
    """joint = one step for both gradients (the formula); else a forget and a retain step with an AdamW each [inferred]."""
    gamma: float = 1.0
    """Threshold of the mask: kept where F_T > gamma F_P (released 1; later searched in {0.5, 1, 2})."""
    alpha: float = 1.0
    """Weight of the forget gradient (released default)."""
    retain_ratio: int = 1
    """Rho, retain batches per forget batch [inferred]; the released code has the ratio of the data, 19 at 5 %."""
    retain: tuple[Literal["retain", "retain_text", "forget_text", "stranger", "general"], ...] = ("retain",)
    """Roles of the retain term; in the paper retain images only, never text questions."""
    modules: tuple[Part, ...] = ()
    """Masked parts: vision, projector, language; empty = the trained ones [inferred]. Released: language."""
    also: tuple[str, ...] = ()
    """Name endings of norms, embeddings or heads that are masked too; others get no forget gradient [inferred]."""
    p_samples: int = 300
    """Samples of T and of P behind the mask, at most [inferred]; released: all."""
    p_text: Source = "facts"
    """Text part of P: facts = the text questions of the training data, else those about images with names put in; released = what the
    data judge in text, as published (the answers then shape the mask, nothing is trained on them)."""
    tolerance: float = 0.005
    """Stop the sweep when fewer than this share of the mask's bits flip per 50 samples; 0 = use all [inferred]."""
    granularity: Literal["sample", "batch"] = "sample"
    """Square the gradient per sample (the formula), or per batch of 4 (released)."""
    mask: Literal["saliency", "random", "none"] = "saliency"
    """Controls: random = as many weights per tensor, drawn by the seed; none = no mask."""
    released_like: Like = "mllmu"
    """as_released only: which of the two published scripts (labels, clipping, batch of the mask)."""
    released_precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """as_released only: type of weights and moments; auto = fp16 for LLaVA, bf16 for the others, as published."""
    allow_noop_mask: bool = False
    """as_released only: run with LoRA, where the published mask matches nothing; the record then says "unmasked"."""

    def __post_init__(self) -> None:
        """Reject values that no run could use."""
        super().__post_init__()
        if self.retain_ratio < 1:
            raise UserError(f"method.retain_ratio must be at least 1, got {self.retain_ratio}.")
        if self.mode == "as_released":
            require_unset(self, "method", OURS)
        self._sweep(0)

    def needs(self) -> Needs:
        """Return the memory requirements of a step."""
        moments = 8.0 if self.update == "alternating" else 0.0
        return Needs(
            retain=self.retain_ratio,
            before=8.0,
            beside=1 / 8 + moments,
            stops=self.mode == "fixed",
            full_weights="takes its mask from gradients of the base's weights",
        )

    def idle(self, training: Training) -> Iterator[tuple[str, str]]:
        """Yield the settings without effect beside the others."""
        if self.mode == "as_released":
            yield from self._idle_as_released(training)
            return
        for name in ("released_like", "released_precision", "allow_noop_mask"):
            yield f"method.{name}", "with method.mode=as_released"
        if self.mask == "none":
            for name in ("gamma", "modules", "also", "p_samples", "p_text", "tolerance", "granularity"):
                yield f"method.{name}", "with a mask (method.mask)"
        elif "language" not in (self.modules or training.parts):
            yield "method.p_text", "with a mask of the language part (method.modules), which alone is reached by text"

    def _idle_as_released(self, training: Training) -> Iterator[tuple[str, str]]:
        """Yield the settings that the published code does not read."""
        if training.tune == "full":
            yield "method.allow_noop_mask", "with training.tune=lora"
        else:
            for name in ("gamma", "modules", "p_text", "released_precision"):
                yield f"method.{name}", "with training.tune=full, as nothing is masked with adapters"
        for name in UNREAD_IN_TRAINING:
            yield f"training.{name}", "with method.mode=fixed"

    def tunes(self) -> tuple[Tune, ...]:
        """Return the ways of tuning: the published code took adapters, too."""
        return ("lora", "full") if self.mode == "as_released" and self.allow_noop_mask else self.trial.tunes

    def unlearn(self, session: Session) -> None:
        """Compute the mask, then train in the chosen mode."""
        if processes.sharding() != "none":
            raise UserError(
                "mmunlearner masks whole weight tensors and cannot do so where they are spread over processes (FSDP, "
                "ZeRO-3). Use several processes with a model each (configs/ddp.yaml), or one process."
            )
        if self.mode == "as_released":
            self._run_released(session)
            return
        _require_full(session)
        retain = self._retain(session)
        mask = self._mask(session)
        self._train(session, mask, retain)

    def _mask(self, session: Session) -> Mask | None:
        """Return the requested mask, or None, and record what it is."""
        if self.mask == "none":
            session.notes["mask"] = "none"
            return None
        saliency = saliency_mask(
            self._text_session(session), self._sweep(session.seed), modules=self.modules, also=self.also
        )
        mask = saliency.shuffled(session.seed) if self.mask == "random" else saliency
        session.notes["mask"] = {
            **mask.report(),
            **_sweep_record(mask.facts, self.tolerance),
            "remarks": mask.remarks(),
        }
        return mask

    def _train(self, session: Session, mask: Mask | None, retain: Sequence[Target]) -> None:
        """Minimise both terms: in one step (mask, add, clip, AdamW), or with an AdamW for each."""
        forget = _forget(session)
        forget_steps: _ForgetSteps | None = None
        if self.update == "alternating":
            _require_steps_of_our_own(session)
            forget_steps = _ForgetSteps(session, plan_batches(session, forget, retain, self.retain_ratio).steps)

        def objective(forget: Batch, retain: Batch | None) -> Iterator[dict[str, Tensor]]:
            yield from self._forget_term(session, mask, forget)
            if forget_steps is not None:
                forget_steps.step()
            yield from retain_term(session, retain, 1.0)

        minimise(session, objective, forget=forget, retain=retain, separate=True, retain_ratio=self.retain_ratio)

    def _forget_term(self, session: Session, mask: Mask | None, forget: Batch) -> Iterator[dict[str, Tensor]]:
        """Yield -alpha CE(forget), backpropagated under the mask."""
        with mask.applied(session.model) if mask else nullcontext():
            forget_nll = answer_nll(*answer_logits(session.model, forget))
            yield {"loss": -self.alpha * forget_nll, "forget_nll": forget_nll}

    def _retain(self, session: Session) -> Sequence[Target]:
        targets = own_answers(session.of(*map(Role, self.retain)))
        if not targets:
            raise UserError(
                f"mmunlearner needs retain examples, but the data have none of the roles {', '.join(self.retain)}. "
                "Add some, or name other roles in method.retain."
            )
        return targets

    def _sweep(self, seed: int) -> Sweep:
        return Sweep(
            gamma=self.gamma,
            granularity=self.granularity,
            samples=self.p_samples,
            tolerance=self.tolerance,
            seed=seed,
        )

    def _run_released(self, session: Session) -> None:
        """Run the published scripts, without a mask under LoRA, which it does not fit."""
        if processes.world() > 1:
            raise UserError("method.mode=as_released is a loop of one process, as published; start one.")
        if session.callbacks:
            raise UserError("method.mode=as_released is the published loop, which fires no callbacks; pass none.")
        require_unset(session.training, "training", OURS_IN_TRAINING)
        if session.training.scheduler == "cosine":
            raise UserError(
                "method.mode=as_released is the published loop, whose rate is constant: expected training.scheduler=constant, got "
                "cosine."
            )
        released_run = Released(session=session, gamma=self.gamma, alpha=self.alpha, like=self.released_like)
        released_run.require_rows()
        if isinstance(session.model, PeftModel):
            if not self.allow_noop_mask:
                raise UserError(
                    "Published with LoRA, the mask names base weights and matches none of the adapters' tensors, so the run "
                    "would be gradient difference with clipping. Set --tune full, or method.allow_noop_mask=true to see it."
                )
            session.notes["mask"] = "unmasked"
            with released_run.checkpointing():
                released_run.train(None)
            return
        session.model.to(self._released_type(session))
        with released_run.checkpointing():
            mask = replace(released_run, session=self._text_session(session)).make_mask(
                maskable(session, self.modules or ("language",), also=("",))
            )
            session.notes["mask"] = mask.report()
            released_run.train(mask)

    def _text_session(self, session: Session) -> Session:
        """Return the session with the text part of P, and record its source."""
        text_session, source = with_texts(session, self.p_text)
        session.notes["p_text"] = {"from": source, "questions": len(text_session.of(*TEXTS))}
        return text_session

    def _released_type(self, session: Session) -> torch.dtype:
        types = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
        config: Any = session.model.config
        published_type = "fp16" if config.model_type.startswith("llava") else "bf16"
        return types[published_type if self.released_precision == "auto" else self.released_precision]


class _ForgetSteps:
    """AdamW for masked forget gradients only.

    Weights outside the mask have no moments here and do not move.

    Weight decay is left to the retain steps, for it would move everything.
    """

    def __init__(self, session: Session, steps: int) -> None:
        training: Training = session.training
        self.weights = list(trainable(session.model).values())
        self.clip = training.clip
        self.optimizer = torch.optim.AdamW(self.weights, lr=training.lr, eps=1e-8, weight_decay=0.0)
        self.schedule = make_schedule(self.optimizer, training, steps)

    def step(self) -> None:
        """Clip the masked gradient, step, and clear gradients for the retain term."""
        norm = clip_grad_norm_(self.weights, self.clip or torch.inf)
        if not torch.isfinite(norm):
            raise TrainingError("The forget gradient is not a finite number. Lower training.lr or method.alpha.")
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)


def _require_steps_of_our_own(session: Session) -> None:
    """Raise for what the second optimizer does not support.

    An interrupted run restarts, since its moments are in no checkpoint.
    """
    if session.training.accumulate > 1 or processes.world() > 1:
        raise UserError(
            "method.update=alternating takes its forget steps within a batch, so it needs training.accumulate=1 and one "
            "process; method.update=joint has neither limit."
        )
    if processes.is_main():
        remove_folder(session.out / "checkpoints")


def _require_full(session: Session) -> None:
    if session.training.tune == "lora" or isinstance(session.model, PeftModel):
        raise UserError(
            "mmunlearner masks the gradients of the model's own weights; with training.tune=lora there are only adapters, "
            "which no mask fits. Set --tune full (training: {tune: full}), and --parts for the parts to train."
        )


def _sweep_record(facts: Mapping[str, Any], tolerance: float) -> dict[str, Any]:
    """Return the record of the sweep, and whether its bits had converged."""
    curve = facts["curve"]
    converged = bool(curve) and curve[-1]["flipped"] < tolerance
    return {"used": facts["used"], "curve": curve, "settled": converged}


def _forget(session: Session) -> Sequence[Target]:
    """Return T: questions about seen forget images, without text questions."""
    return own_answers([example for example in session.of(Role.FORGET) if example.image is not None])
