"""Training of a model on an objective over forget and retain targets."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from unsee.api import Example, Session, Training
from unsee.api.request import Target
from unsee.compat.checkpointing import checkpoint_activations, keep_activations
from unsee.distributed import processes
from unsee.distributed.deepspeed import require_possible
from unsee.distributed.fsdp import shard, shell_of, unsharded
from unsee.errors import TrainingError, UserError
from unsee.inference import vision_cache
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import Batch
from unsee.losses import answer_nll
from unsee.training.batch_plan import Plan
from unsee.training.loop import Loop, Objective, Parts
from unsee.training.precision import autocast
from unsee.training.recompute import recomputing
from unsee.training.recording import record_call
from unsee.training.trainable import prepare, summary, trainable
from unsee.utils.memory import peak_gib, reset_peak
from unsee.utils.terminal import note_once

__all__ = [
    "Objective",
    "Parts",
    "minimise",
    "plan_batches",
    "prepare",
    "required",
    "retain_term",
]


def minimise(
    session: Session,
    objective: Objective,
    *,
    forget: Sequence[Target],
    retain: Sequence[Target] = (),
    separate: bool = False,
    retain_ratio: int = 1,
    questions: Sequence[Example] | None = None,
) -> None:
    """Minimise the objective over the forget targets, paired with retain batches if any.

    Obeys `session.training` (epochs, stop rule, schedule, ...), resumes from `out/checkpoints` if `session.resume`,
    and adds to `session.history`, `session.notes` and `out/log.jsonl`.

    Args:
        session: Model, examples and settings of the run.
        objective: Yields the loss terms of a forget and a retain batch.
        forget: Targets of the forget set.
        retain: Targets of the retain set; none for an objective without one.
        separate: Backpropagate the terms one by one, even with the plain engine (one backward pass for all).
        retain_ratio: Rows of a retain batch per row of a forget batch.
        questions: What the stop rule asks, where some questions may be without a target; default: those of the forget targets.

    Raises:
        UserError: No forget target, or weights that are sharded although the objective needs them whole.
        TrainingError: A loss or gradient that is not finite.
    """
    if record_call(session, objective, forget, retain):
        return
    if not forget:
        raise UserError("There is nothing to forget: the forget role has no example this method can train on.")
    if separate and processes.sharding() != "none":
        raise UserError(
            "This method masks gradients, which needs whole weights in every process. Use configs/ddp.yaml, or one process."
        )
    _require_whole(session, separate=separate)
    processes.start()
    plan = plan_batches(session, forget, retain, retain_ratio)
    session.notes.update(summary(session.model))
    if not session.notes["trainable"]:
        raise TrainingError("No weight is trainable; call `prepare` on the model first.")
    _require_images(session, plan)
    reset_peak()
    start = time.perf_counter()
    apart = separate or (session.engine.separate_terms and processes.sharding() != "zero3")
    precision = partial(autocast, session.model, session.training)
    with vision_cache.shared_features(session, precision), _spread(session, plan):
        checkpointing = session.training.gradient_checkpointing
        if checkpointing:
            checkpoint_activations(session.model)
        with recomputing(session.model, session.engine, checkpointing=checkpointing) as forward:
            loop = Loop(session, plan, objective, apart=apart, forward=forward, questions=questions)
            loop.run()
        if checkpointing:
            keep_activations(session.model)
    session.notes.update(
        steps=loop.state.global_step,
        epochs=round(plan.epoch_at(loop.state.global_step), 3),
        stop_reason=loop.monitor.stop_reason,
        train_seconds=round(time.perf_counter() - start, 3),
        peak_gib=peak_gib(),
    )


def _require_whole(session: Session, *, separate: bool) -> None:
    """Raise if training.robust meets masked gradients or sharded weights."""
    robust = session.training.robust
    if robust != "none" and separate:
        raise UserError(f"training.robust={robust} does not go with a method that masks gradients. Leave it out.")
    if robust != "none" and processes.sharding() != "none":
        raise UserError(
            f"training.robust={robust} needs whole weights in every process. Use configs/ddp.yaml, or one process."
        )


def plan_batches(session: Session, forget: Sequence[Target], retain: Sequence[Target], retain_ratio: int = 1) -> Plan:
    """Return the batch schedule of `minimise`, and reject a warm-up longer than the run.

    Args:
        session: Model, examples and settings of the run.
        forget: Targets of the forget set.
        retain: Targets of the retain set.
        retain_ratio: Rows of a retain batch per row of a forget batch.
    """
    plan = Plan(forget, retain, session.training, session.seed, processes.world(), retain_ratio)
    if forget:
        _tell_idle(session.training, plan)
    if forget and session.training.warmup_steps >= max(1, plan.steps):
        raise UserError(
            f"training.warmup_steps is {session.training.warmup_steps}, but the run has {plan.steps} steps: the learning "
            "rate would never reach training.lr. Set fewer warm-up steps, or more epochs."
        )
    return plan


def _tell_idle(training: Training, plan: Plan) -> None:
    """Tell of settings that the number of steps leaves without effect."""
    if plan.steps < training.max_steps:
        note_once(
            f"training.max_steps={training.max_steps} has no effect: training.epochs={training.epochs} ends after {plan.steps} steps."
        )
    if training.check_every > plan.steps and (training.stop != "never" or training.guard != "none"):
        note_once(f"training.check_every={training.check_every} has no effect: the run has {plan.steps} steps.")


def required(retain: Batch | None) -> Batch:
    """Return the retain batch, or raise if there is none."""
    if retain is None:
        raise TrainingError("This objective needs retain targets; pass `retain` to `minimise`.")
    return retain


def retain_term(session: Session, retain: Batch | None, weight: float) -> Iterator[Parts]:
    """Yield `weight` times the cross-entropy on retain answers, if both exist."""
    if retain is not None and weight:
        retain_nll = answer_nll(*answer_logits(session.model, retain))
        yield {"loss": weight * retain_nll, "retain_nll": retain_nll}


@contextmanager
def _spread(session: Session, plan: Plan) -> Iterator[None]:
    """Shard the model for the block if the launcher asks for it, and unshard it afterwards.

    Processes then work in lockstep: what one of them could skip (cached features, a second pass for short rows), all run.
    """
    if processes.sharding() == "none":
        yield
        return
    language_pattern = session.family.parts(session.model)["language"]
    if processes.sharding() == "zero3":
        require_possible(session, [*plan.forget, *plan.retain])
    _require_alike(session, plan, language_pattern)
    vision_cache.forget(session.model)
    shell = shell_of(session.model)
    if processes.sharding() == "fsdp2":
        shard(session.model, language_pattern)  # DeepSpeed does it when there is an optimizer
    engine = session.engine
    session.engine = replace(engine, vision_features=False, split_batches=False)
    try:
        yield
    finally:
        session.engine = engine
    session.model = unsharded(shell, session.model)


def _require_alike(session: Session, plan: Plan, language_pattern: str) -> None:
    """Raise if rows without an image pass by weights on some ranks that others wait for."""
    outside_names = [name for name in trainable(session.model) if not re.match(language_pattern, name)]
    kinds = {target.example.image is not None for targets in (plan.forget, plan.retain) for target in targets}
    if len(kinds) < 2:
        return
    config: Any = session.model.config
    if hasattr(config.get_text_config(), "cross_attention_layers"):  # Mllama skips them for text alone
        raise UserError(
            "With FSDP a model that looks at images through layers of its own (Mllama) can be trained only if every row, or "
            "none, has an image. Leave the rows without images out, or use configs/ddp.yaml."
        )
    if outside_names:
        raise UserError(
            "With FSDP the vision tower and the projector can be trained only if every row, or none, has an image. "
            "Train training.parts=language, leave the rows without images out, or use configs/ddp.yaml."
        )


def _require_images(session: Session, plan: Plan) -> None:
    """Raise if a batch has text-only rows alone, which reach no trained weight."""
    language_pattern = session.family.parts(session.model)["language"]
    if any(re.match(language_pattern, name) for name in trainable(session.model)):
        return
    for index in range(len(plan)):
        for side, targets in zip(("forget", "retain"), plan.batch(index), strict=True):
            shares = [targets[rank :: plan.world] for rank in range(plan.world)]
            if any(share and not any(target.example.image for target in share) for share in shares):
                raise UserError(
                    f"Batch {index + 1} has {side} rows without an image only, which do not reach "
                    f"training.parts={','.join(session.training.parts)}. Leave such rows out, or train language too."
                )
