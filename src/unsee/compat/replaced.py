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
    classes = [type(module) for module in modules]
    for module in modules:
        module.__class__ = _with(mixin, type(module))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for module, original in zip(modules, classes, strict=True):
            module.__class__ = original


@cache
def _with(mixin: Any, original: Any) -> Any:
    """Return a class with the mixin before it, under the original name."""
    return type(original.__name__, (mixin, original), {"__module__": original.__module__})


@contextmanager
def image_features(model: Any, function: Callable[..., Any]) -> Iterator[None]:
    """Replace a model's `get_image_features` for the block."""
    model.get_image_features = function
    try:
        yield
    finally:
        del model.get_image_features
