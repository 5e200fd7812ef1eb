"""Fake tensors (shapes without data), and a meter of tensor memory.

The estimate runs real forward and backward passes on them, with whatever the installed versions keep for the backward pass.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.nn import Module, Parameter
from torch.utils._python_dispatch import TorchDispatchMode

from unsee.compat import tensors

NEEDS_VALUES: Final = (DataDependentOutputException, DynamicOutputShapeException)
"""Exceptions of fake tensors where a computation depends on values."""


class Meter(TorchDispatchMode):
    """Count of bytes of tensors created in the block and alive, without those of `model`."""

    def __init__(self, model: Module | None = None) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._sizes: dict[int, Any] = {}
        for tensor in [] if model is None else [*model.parameters(), *model.buffers()]:
            self._sizes[tensors.storage_id(tensor)] = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the operation and count the memory of its results."""
        results = func(*args, **(kwargs or {}))
        for leaf in tensors.leaves(results):
            if isinstance(leaf, Tensor):
                self._note(leaf)
        return results

    def _note(self, tensor: Tensor) -> None:
        key, storage = tensors.storage_id(tensor), tensor.untyped_storage()
        if key in self._sizes:
            return
        size = storage.nbytes()
        self._sizes[key] = weakref.finalize(storage, self._forget, key, size)
        self.live += size
        self.peak = max(self.peak, self.live)

    def _forget(self, key: int, size: int) -> None:
        self.live -= size
        del self._sizes[key]


@contextmanager
def weightless(model: Module) -> Iterator[Module]:
    """Give a meta-device model fake CPU tensors for the block, so that code runs unchanged."""
    with FakeTensorMode():
        fakes: dict[int, Tensor] = {}
        for module in model.modules():
            named_tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
            for name, tensor in named_tensors:
                setattr(module, name, fakes.setdefault(id(tensor), _fake(tensor)))
        yield model


def with_values() -> AbstractContextManager[Any]:
    """Return a context in which tensors are real again."""
    context: AbstractContextManager[Any] = unset_fake_temporarily()
    return context


def is_fake(tensor: Tensor) -> bool:
    """Tell whether a tensor has no data."""
    return isinstance(tensor, FakeTensor) or tensor.is_meta


def _fake(tensor: Tensor) -> Tensor:
    empty = torch.empty(tensor.shape, dtype=tensor.dtype)
    return Parameter(empty, requires_grad=tensor.requires_grad) if isinstance(tensor, Parameter) else empty
