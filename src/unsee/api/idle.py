"""Refusal of settings that were given and can have no effect."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, fields
from typing import TYPE_CHECKING, Any, Final

from unsee.errors import UserError, short_repr

if TYPE_CHECKING:
    from unsee.api.method import Method
    from unsee.api.training import Training

Idle = Iterable[tuple[str, str]]
"""Path of a setting without effect (`method.strength`), and what it counts with ("with method.update=additive")."""
_STEPS: Final = (
    "lr",
    "epochs",
    "max_steps",
    "batch_size",
    "accumulate",
    "weight_decay",
    "clip",
    "scheduler",
    "warmup_steps",
    "stop",
    "guard",
    "robust",
)
"""Settings of `Training` that only training steps read."""


def idle_in_run(method: Method, training: Training) -> Iterator[tuple[str, str]]:
    """Yield the settings of a method and its training that have no effect beside the others."""
    yield from method.idle(training)
    if method.needs().trains:
        yield from training.idle(adapters=method.needs().adapters, checks=_checks(method, training))


def idle_for_method(method: Method, training: Training) -> Iterator[tuple[str, str]]:
    """Yield the settings of the training that this method does not read, and that it may have got as others do."""
    needs = method.needs()
    if not needs.trains:
        yield from ((f"training.{name}", "for methods that take training steps") for name in _STEPS)
    if not needs.generates and not (needs.trains and (training.guard != "none" or _checks(method, training))):
        yield (
            "training.max_new_tokens",
            "for methods that generate, or with training.stop=forgotten or training.guard=collapse",
        )


def _checks(method: Method, training: Training) -> bool:
    """Tell whether anything but the guard is checked while training."""
    needs = method.needs()
    return needs.checks or (needs.stops and training.stop != "never")


def without_effect(
    parts: Mapping[str, Any],
    idle: Idle,
    *,
    neutral: Mapping[str, Any] | None = None,
    only: Container[str] | None = None,
) -> Iterator[str]:
    """Yield a message for every setting that was given and has no effect.

    A value counts as given unless it is the default, for run files spell out every setting.

    Args:
        parts: Part of a run file (`method`, `training`) -> dataclass of its settings; "" for settings at the top.
        idle: Settings without effect.
        neutral: Part -> dataclass with further values that count as not given, such as those that the data suggest.
        only: Paths of the settings to look at. Default: all.
    """
    for path, needed in idle:
        part, _, name = path.rpartition(".")
        value = getattr(parts[part], name)
        unset_values = [_default(parts[part], name)]
        if neutral and part in neutral:
            unset_values.append(getattr(neutral[part], name))
        if value not in unset_values and (only is None or path in only):
            yield f"{path}={short_repr(value)} has no effect: it counts only {needed}. Set that, or leave {path} out."


def require_effect(
    parts: Mapping[str, Any],
    idle: Idle,
    *,
    neutral: Mapping[str, Any] | None = None,
    only: Container[str] | None = None,
) -> None:
    """Raise for a setting that was given and has no effect.

    Args:
        parts: Part of a run file -> dataclass of its settings.
        idle: Settings without effect.
        neutral: Part -> dataclass with further values that count as not given.
        only: Paths of the settings to look at. Default: all.

    Raises:
        UserError: There is one; the message says what it counts with.
    """
    for message in without_effect(parts, idle, neutral=neutral, only=only):
        raise UserError(message)


def _default(settings: Any, name: str) -> Any:
    field: Field[Any] = next(field for field in fields(settings) if field.name == name)
    return field.default if field.default_factory is MISSING else field.default_factory()
