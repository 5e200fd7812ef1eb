"""Trials of fast paths against the plain path, before first use.

A trial computes the same numbers both ways on a small batch, once per fast path, versions, model class and config. If the
fast way raises or the numbers differ, the plain way is taken and one line on stderr says so. The record is
`unsee.compat.fast_paths.status()`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from typing import Final
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import Module

from unsee.compat.fake_tensors import is_fake
from unsee.compat.fast_paths import PATHS, RECORD, FastPath, Status
from unsee.compat.models import config_facts, unwrapped
from unsee.errors import UnseeError
from unsee.utils.terminal import err

Numbers = Callable[[], Tensor]
"""Computation whose result both paths must share."""
TOLERANCE: Final = {torch.float32: 1e-4, torch.float64: 1e-4}
"""Largest difference relative to the largest number, by precision; the tests of each path hold tiny models to 1e-5."""
ROUGH: Final = 5e-2
"""The same in half precision, where the paths round differently."""
_KEYS: WeakKeyDictionary[Module, str] = WeakKeyDictionary()


_TRYING: ContextVar[bool] = ContextVar("trying", default=False)


def trying() -> bool:
    """Tell whether a trial is running, in which hooks on the model do nothing."""
    return _TRYING.get()


def verdict(name: str, model: Module) -> bool | None:
    """Return the trial result of this process for this kind of model, or None without one."""
    status = RECORD.statuses.get(_place(name, model))
    return None if status is None else status.state == "on"


def proven(name: str, model: Module, fast: Numbers, plain: Numbers) -> bool:
    """Tell whether a fast path agrees with the plain one on this kind of model, by a trial.

    Args:
        name: Key of the path in `PATHS`.
        model: The model, whose class, config, precision and device the verdict is kept for.
        fast: Computation of some numbers the fast way; may raise.
        plain: Computation of the same numbers the plain way; what it raises is raised here.
    """
    if _TRYING.get():
        return True  # one trial at a time: this one is part of another
    key = _place(name, model)
    if key not in RECORD.statuses:
        if is_fake(_first(model)):
            return True  # the estimate, which has no numbers to compare
        RECORD.statuses[key] = _trial_status(PATHS[name], key, model, fast, plain)
    return RECORD.statuses[key].state == "on"


def _trial_status(path: FastPath, key: str, model: Module, fast: Numbers, plain: Numbers) -> Status:
    """Return the result of a trial, now or earlier, and record it or warn."""
    make_status = partial(Status, path, model=type(unwrapped(model)).__name__, version=_version(path.library))
    if key in RECORD.proven:
        return make_status(state="on")
    if _is_sharded(model):
        return make_status(state="on", reason="not tried, because the weights are sharded over processes")
    fault = trial_fault(model, fast, plain)
    if fault:
        status = make_status(state="off", reason=fault)
        _warn(status)
        return status
    RECORD.proven.add(key)
    RECORD.save()
    return make_status(state="on")


def trial_fault(model: Module, fast: Numbers, plain: Numbers) -> str:
    """Return what is wrong with the fast path, "" if nothing is."""
    with _quiet(model):
        expected = plain().float().cpu()
        try:
            actual = fast().float().cpu()
        except (UnseeError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever a changed library raises
            return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    return _difference(actual, expected, TOLERANCE.get(_dtype(model), ROUGH))


def _difference(actual: Tensor, expected: Tensor, tolerance: float) -> str:
    """Return how the numbers differ, "" if they agree."""
    if actual.shape != expected.shape:
        return f"shape {list(actual.shape)} instead of {list(expected.shape)}"
    finite = expected.isfinite()
    if not torch.equal(finite, actual.isfinite()):
        return "numbers that are finite are not the same"
    actual, expected = actual[finite], expected[finite]
    scale = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
    gap = float((actual - expected).abs().max()) if expected.numel() else 0.0
    return "" if gap <= tolerance * scale else f"numbers differ by {gap:.2g}, allowed is {tolerance * scale:.2g}"


@contextmanager
def _quiet(model: Module) -> Iterator[None]:
    """Run a trial without side effects: eval mode, no gradient, RNG restored."""
    modes = [(module, module.training) for module in model.modules()]
    device, token = _first(model).device, _TRYING.set(True)
    model.eval()
    try:
        forked = torch.random.fork_rng([device] if device.type == "cuda" else [])
        with forked, torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
        torch.clear_autocast_cache()  # casts made without gradient must not serve the passes after (torch before 2.11 kept them)
        _TRYING.reset(token)


def _warn(status: Status) -> None:
    """Print one line about a disabled path, once per path and process."""
    path = status.path
    if path.name in RECORD.warned or os.environ.get("RANK", "0") != "0":
        return
    RECORD.warned.add(path.name)
    err(
        f"unsee: fast path {path.name!r} is off for {status.model} with {path.library} {status.version} ({status.reason}); "
        f"results are the same, but {path.cost}."
    )


def _place(name: str, model: Module) -> str:
    """Return the key of a trial."""
    return f"{name} {_key(model)} {_dtype(model)}"


def _key(model: Module) -> str:
    """Return what a trial is valid for: versions, class, config, precision and device."""
    if model not in _KEYS:
        inner = unwrapped(model)
        libraries = {name: _version(name) for name in ("unsee", "torch", "transformers", "peft")}
        facts = [libraries, type(model).__qualname__, type(inner).__qualname__, config_facts(model)]
        facts += [str(getattr(getattr(inner, "config", None), "_attn_implementation", "")), _device(model)]
        text = json.dumps(facts, sort_keys=True, default=str)
        _KEYS[model] = hashlib.sha256(text.encode()).hexdigest()[:24]
    return _KEYS[model]


def _is_sharded(model: Module) -> bool:
    """Tell whether weights are sharded, where a forward pass waits for all ranks."""
    weight = _first(model)
    return isinstance(weight, DTensor) or hasattr(weight, "ds_id")


def _dtype(model: Module) -> torch.dtype:
    """Return the precision of the computation."""
    device = _device(model)
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return _first(model).dtype


def _first(model: Module) -> Tensor:
    """Return the first weight, or an empty tensor for a model without weights."""
    return next(model.parameters(), torch.empty(0))


def _device(model: Module) -> str:
    return _first(model).device.type


@cache
def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""
