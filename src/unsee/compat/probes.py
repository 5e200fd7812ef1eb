"""Trial of every fast path that leans on a library's inside, against the plain path behind it, before it is used.

A trial computes the same numbers both ways on a small batch, once per fast path, versions, model class and config. If the
fast way raises or the numbers differ, the plain way is taken and one line on stderr says so. `status()` is the record.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import Module

from unsee.errors import UnseeError

Numbers = Callable[[], Tensor]
"""Computation of what both ways must agree on."""
TOLERANCE: Final = {torch.float32: 1e-4, torch.float64: 1e-4}
"""Largest difference relative to the largest number, by precision; the tests of each path hold tiny models to 1e-5."""
ROUGH: Final = 3e-2
"""The same in half precision, where two ways round differently."""
FILE: Final = "fast_paths.json"
"""Trials that went well, in the cache folder that runs share."""


@dataclass(frozen=True, kw_only=True)
class FastPath:
    """A fast path that leans on a library's inside."""

    name: str
    switch: str
    """Field of `unsee.engine.Engine` that switches it off by hand."""
    library: str
    """The library whose inside it leans on."""
    cost: str
    """What the plain path costs, for the warning."""


PATHS: Final = {
    path.name: path
    for path in (
        FastPath(
            name="answer_logits",
            switch="answer_logits",
            library="transformers",
            cost="logits are computed for the whole sequence, which takes more memory",
        ),
        FastPath(
            name="vision_features",
            switch="vision_features",
            library="transformers",
            cost="every image is encoded in every step",
        ),
        FastPath(
            name="packed_rows",
            switch="shared_prefix",
            library="transformers",
            cost="every question in training encodes its image again",
        ),
        FastPath(
            name="packed_likelihoods",
            switch="shared_prefix",
            library="transformers",
            cost="every scored answer encodes its image again",
        ),
        FastPath(
            name="prefix_cache",
            switch="shared_prefix",
            library="transformers",
            cost="every question is answered from the pixels, which takes several times as long",
        ),
        FastPath(
            name="recompute",
            switch="recompute",
            library="torch",
            cost="training keeps about two fifths more activations in memory",
        ),
    )
}

State = Literal["on", "off", "untried"]


@dataclass(frozen=True)
class Status:
    """What is known about a fast path for one kind of model."""

    path: FastPath
    state: State
    reason: str = ""
    """Why it is off."""
    model: str = ""
    """Class of the model it was tried on, "" if it was not."""
    version: str = ""
    """Version of the library."""


@dataclass
class _Record:
    """Trials of this process and of earlier ones."""

    known: dict[str, Status] = field(default_factory=dict)
    proven: set[str] = field(default_factory=set)
    """Keys of trials that went well in earlier processes."""
    folder: Path | None = None
    warned: set[str] = field(default_factory=set)
    keys: WeakKeyDictionary[Module, str] = field(default_factory=WeakKeyDictionary)


_RECORD = _Record()
_TRYING: ContextVar[bool] = ContextVar("trying", default=False)


def status() -> list[Status]:
    """Return the state of every fast path, for each kind of model that it was tried on in this process."""
    tried = [_RECORD.known[key] for key in sorted(_RECORD.known)]
    names = {one.path.name for one in tried}
    return [*tried, *(Status(path, "untried") for name, path in PATHS.items() if name not in names)]


def forget() -> None:
    """Forget all trials of this process."""
    global _RECORD  # noqa: PLW0603 - one record per process
    _RECORD = _Record()


def trying() -> bool:
    """Tell whether a trial is running; hooks on the model then do nothing."""
    return _TRYING.get()


def proven(name: str, model: Module, fast: Numbers, plain: Numbers) -> bool:
    """Tell whether a fast path agrees with the plain one on this kind of model, trying it if nobody has.

    Args:
        name: Key of the path in `PATHS`.
        model: The model, whose class, config, precision and device the verdict is kept for.
        fast: Computation of some numbers the fast way; may raise.
        plain: Computation of the same numbers the plain way; what it raises is raised here.
    """
    if _TRYING.get():
        return True  # one trial at a time: this one is part of another
    key = f"{name} {_key(model)}"
    if key not in _RECORD.known:
        path = PATHS[name]
        fault = "" if key in _RECORD.proven else _tried(model, fast, plain)
        kind = type(_inner(model)).__name__
        _RECORD.known[key] = Status(path, "off" if fault else "on", fault, kind, _version(path.library))
        if fault:
            _warn(_RECORD.known[key])
        else:
            _RECORD.proven.add(key)
            _save()
    return _RECORD.known[key].state == "on"


def remember_in(folder: Path) -> None:
    """Read trials that went well from a shared cache folder, and write those to come there."""
    if _RECORD.folder == folder:
        return
    _RECORD.folder = folder
    earlier = set(_RECORD.proven)
    _RECORD.proven |= set(_read(folder / FILE))
    if earlier:
        _save()


def _tried(model: Module, fast: Numbers, plain: Numbers) -> str:
    """Return what is wrong with the fast way, "" if nothing is."""
    with _quiet(model):
        expected = plain().float().cpu()
        try:
            made = fast().float().cpu()
        except (UnseeError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever a changed library raises
            return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    return _difference(made, expected, TOLERANCE.get(_dtype(model), ROUGH))


def _difference(made: Tensor, expected: Tensor, tolerance: float) -> str:
    """Return how the numbers differ, "" if they agree."""
    if made.shape != expected.shape:
        return f"shape {list(made.shape)} instead of {list(expected.shape)}"
    scale = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
    apart = float((made - expected).abs().max()) if expected.numel() else 0.0
    return "" if apart <= tolerance * scale else f"numbers differ by {apart:.2g}, allowed is {tolerance * scale:.2g}"


@contextmanager
def _quiet(model: Module) -> Iterator[None]:
    """Leave no trace of a trial: eval mode, no gradient, random numbers as before."""
    training, token = model.training, _TRYING.set(True)
    model.eval()
    try:
        with torch.random.fork_rng(), torch.no_grad():
            yield
    finally:
        model.train(training)
        _TRYING.reset(token)


def _warn(found: Status) -> None:
    """Write one line about a path that is off, once per path and process."""
    path = found.path
    if path.name in _RECORD.warned or os.environ.get("RANK", "0") != "0":
        return
    _RECORD.warned.add(path.name)
    sys.stderr.write(
        f"unsee: fast path {path.name!r} is off for {found.model} with {path.library} {found.version} ({found.reason}); "
        f"results are the same, but {path.cost}.\n"
    )


def _key(model: Module) -> str:
    """Return what a trial holds for: versions, class, config, precision and device."""
    if model not in _RECORD.keys:
        inner = _inner(model)
        config = inner.config.to_dict() if hasattr(inner, "config") else {}
        libraries = {name: _version(name) for name in ("unsee", "torch", "transformers", "peft")}
        facts = [libraries, type(model).__qualname__, type(inner).__qualname__, config, str(_dtype(model))]
        facts += [str(getattr(getattr(inner, "config", None), "_attn_implementation", "")), _device(model)]
        text = json.dumps(facts, sort_keys=True, default=str)
        _RECORD.keys[model] = hashlib.sha256(text.encode()).hexdigest()[:24]
    return _RECORD.keys[model]


def _inner(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _dtype(model: Module) -> torch.dtype:
    """Return the precision that numbers are computed in."""
    device = _device(model)
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return next(model.parameters()).dtype


def _device(model: Module) -> str:
    return next(model.parameters()).device.type


@cache
def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""


def _read(file: Path) -> list[str]:
    """Return the keys in a file of trials; nothing if there is none or it is damaged."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [key for key in found if isinstance(key, str)] if isinstance(found, list) else []


def _save() -> None:
    """Write the trials that went well, in one step, if a folder is known and can be written to."""
    if _RECORD.folder is None or not _RECORD.folder.is_dir():
        return
    keys = sorted(_RECORD.proven | set(_read(_RECORD.folder / FILE)))
    part = _RECORD.folder / f".{FILE}.{os.getpid()}"
    try:
        part.write_text(json.dumps(keys, indent=0) + "\n", encoding="utf-8")
        part.replace(_RECORD.folder / FILE)
    except OSError:
        part.unlink(missing_ok=True)
