"""The contract of methods, run on a tiny model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from unsee.api import Method, Session, Training
from unsee.api.request import Prompt
from unsee.api.training import Tune
from unsee.compat.models import unwrapped
from unsee.inference.batching import collate
from unsee.inference.generation import generate
from unsee.models.checkpoint import open_model, save_model
from unsee.testing.checks import refusal, require, settings_contract
from unsee.testing.tiny import Drawn, save_tiny, tiny_session
from unsee.training.recording import recording
from unsee.training.robust import KEPT_SIDE
from unsee.training.trainer import prepare

STEPS = 2


def method_contract(method: type[Method], tune: Tune, out: Path) -> None:
    """Check a method on a tiny model, with LoRA or full tuning and its `trial` settings.

    Weights stay finite, something changes and frozen parts do not, images reach every forward pass, two runs agree, the
    saved model answers like the one in memory, terms on retain rows have names that say so, and settings are frozen, finite
    and documented, and those that `idle` names exist. A way of tuning that is not in `trial.tunes` must be rejected.

    Args:
        method: The class.
        tune: Way of tuning, usually a parameter of the test.
        out: Empty folder, such as pytest's `tmp_path`.

    Raises:
        AssertionError: One of these does not hold.
    """
    settings_contract(method, method.trial.settings)
    _require_idle_settings(method, tune)
    if tune not in method.trial.tunes:
        message = refusal(lambda: _make_method(method).unlearn(session_at(out, tune)), f"training.tune={tune}")
        require(f"--tune {method.trial.tunes[0]}" in message, f"the refusal of {tune} must name --tune, got: {message}")
        return
    session = session_at(out / "a", tune)
    weights_before = _weights(session)
    with watched_images(session.model, _image_token(session)) as images:
        _make_method(method).unlearn(session)
    needs = _make_method(method).needs()
    changes = needs.trains or needs.edits
    _require_changes(session, weights_before, changes=changes)
    require(all(images), "a forward pass with image tokens had neither pixels nor features")
    require(images or not changes, "no forward pass saw an image")
    if needs.trains:
        require(session.notes["steps"] == len(session.history) == STEPS, f"expected {STEPS} steps in notes and history")
    _require_equal_runs(method, tune, out / "b", _weights(session))
    _require_saved(session, out)
    if tune == method.trial.tunes[0]:
        _require_named_terms(method, session_at(out / "terms", tune))


def session_at(out: Path, tune: Tune = "lora", **settings: Any) -> Session:
    """Return a session on a tiny model that is ready to train for two steps."""
    values = {"tune": tune, "lr": 1e-3, "max_steps": STEPS, "stop": "never", "max_new_tokens": 5, **settings}
    session = tiny_session(out, training=Training(**values))
    session.model = prepare(session.model, session.family, session.training, session.seed)
    return session


@contextmanager
def watched_images(model: Any, image_token: int) -> Iterator[list[bool]]:
    """Record per forward pass of new image tokens whether pixels or features come with it."""
    image_flags: list[bool] = []

    def watch(_: Module, __: Any, inputs: Mapping[str, Any]) -> None:
        token_ids = inputs.get("input_ids")
        if token_ids is not None and token_ids.shape[1] > 1 and (token_ids == image_token).any():
            image_flags.append(inputs.get("pixel_values") is not None or inputs.get("mm_encoder_outputs") is not None)

    with unwrapped(model).register_forward_pre_hook(watch, with_kwargs=True):
        yield image_flags


def _make_method(method: type[Method], **overrides: Any) -> Method:
    return method(**{**method.trial.settings, **overrides})


def _require_idle_settings(method: type[Method], tune: Tune) -> None:
    """Raise unless what `idle` yields are settings of the method and the training."""
    names = {f"method.{field.name}" for field in fields(method)} | {
        f"training.{field.name}" for field in fields(Training)
    }
    unknown_names = {path for path, _ in _make_method(method).idle(Training(tune=tune))} - names
    require(not unknown_names, f"idle() names what is no setting: {sorted(unknown_names)[:3]}")


def _weights(session: Session) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in session.model.named_parameters()}


def _image_token(session: Session) -> int:
    return int(session.model.config.image_token_id)  # type: ignore[union-attr,arg-type]


def _require_changes(session: Session, before: Mapping[str, Tensor], *, changes: bool) -> None:
    after = dict(session.model.named_parameters())
    require(all(weight.isfinite().all() for weight in after.values()), "a weight is not finite")
    changed_names = {name for name, weight in after.items() if not torch.equal(before[name], weight)}
    require(
        bool(changed_names) == changes,
        f"by needs() weights {'do' if changes else 'do not'} change, but {len(changed_names)} did",
    )
    frozen_names = sorted(name for name in changed_names if not after[name].requires_grad)
    require(not frozen_names, f"frozen weights changed: {frozen_names[:3]}")
    outside_names = sorted(name for name in changed_names if "vision_tower" in name or "projector" in name)
    require(not outside_names, f"weights outside of the language model changed: {outside_names[:3]}")


def _require_equal_runs(method: type[Method], tune: Tune, out: Path, weights: Mapping[str, Tensor]) -> None:
    session = session_at(out, tune)
    _make_method(method).unlearn(session)
    other_weights = _weights(session)
    unequal_names = sorted(name for name, weight in weights.items() if not torch.equal(weight, other_weights[name]))
    require(not unequal_names, f"two runs with one seed differ: {unequal_names[:3]}")


def _require_named_terms(method: type[Method], session: Session) -> None:
    """Raise unless the terms on retain rows, and no others, are named so and come last.

    Their names are `retain_*` or `decouple_*`, by which `unsee.training.robust` recognises them. A single loss has no terms to check.
    """
    weighted = "retain_weight" in {field.name for field in fields(method)}
    with recording() as calls:
        _make_method(method, **({"retain_weight": 1.0} if weighted else {})).unlearn(session)
    if not calls or len(calls[0].retain) < 2:
        return
    call = calls[0]
    forget_batch, retain_ends = collate(session, call.forget[:2]), (call.retain[:1], call.retain[-1:])
    first_terms, last_terms = (call.objective(forget_batch, collate(session, end)) for end in retain_ends)
    if isinstance(first_terms, dict) or isinstance(last_terms, dict):
        return
    reads_retain, has_retain_name = [], []
    for first_term, last_term in zip(first_terms, last_terms, strict=True):
        reads_retain.append(not torch.allclose(first_term["loss"], last_term["loss"], rtol=1e-4, atol=1e-7))
        has_retain_name.append(any(name.startswith(KEPT_SIDE) for name in first_term))
    require(has_retain_name == sorted(has_retain_name), "terms named retain_* or decouple_* must come after all others")
    require(
        all(is_named or not reads for is_named, reads in zip(has_retain_name, reads_retain, strict=True)),
        "a term that depends on the retain batch has no part named retain_* or decouple_*",
    )


def _require_saved(session: Session, out: Path) -> None:
    base = save_tiny(out / "base")
    save_model(session.model, session.processor, out / "run" / "model", base=base)
    loaded = open_model(out / "run")
    answers_before = answers(replace(session, vlm=replace(session.vlm, processor=loaded.processor)))
    session.vlm = loaded
    require(answers(session) == answers_before, "the saved model answers otherwise than the one in memory")


def answers(session: Session) -> list[str]:
    """Return greedy answers about three people."""
    requests = [Prompt("Who is this?", Drawn(color)) for color in ("red", "blue", "green")]
    responses = generate(session.vlm, requests, max_new_tokens=6)
    return [response.text for response in responses]
