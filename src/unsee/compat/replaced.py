"""Temporary replacement of classes and methods where no public hook suffices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from torch.nn import Module


@contextmanager
def mixed_in(modules: Sequence[Module], mixin: type) -> Iterator[None]:
    """Insert a mixin before the class of each module for the block."""
    before = [type(module) for module in modules]
    for module in modules:
        module.__class__ = _with(mixin, type(module))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for module, own in zip(modules, before, strict=True):
            module.__class__ = own


@cache
def _with(mixin: Any, own: Any) -> Any:
    """Return a class with the mixin before it, under the original name."""
    return type(own.__name__, (mixin, own), {"__module__": own.__module__})


@contextmanager
def image_features(model: Any, function: Callable[..., Any]) -> Iterator[None]:
    """Replace a model's `get_image_features` for the block."""
    model.get_image_features = function
    try:
        yield
    finally:
        del model.get_image_features
