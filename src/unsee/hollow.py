"""Models without weights: every tensor has a shape and a type, and nothing in it. For counting what a real one would take.

`Meter` counts the bytes of all tensors that are alive, real ones or hollow ones.
Shapes: b batch, t tokens, d width of the model.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import Module, Parameter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForImageTextToText

_DEVICE: Final[ContextVar[str]] = ContextVar("device", default="")
"""For which device models are made without weights; empty = they are loaded."""


class Meter(TorchDispatchMode):
    """Counts the bytes of the tensors made while it is on, and how many of them are alive; those of `model` are left out."""

    def __init__(self, model: Module | None = None) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._known: dict[int, Any] = {}
        for tensor in [] if model is None else [*model.parameters(), *model.buffers()]:
            self._known[tensor.untyped_storage()._cdata] = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Do what is asked for and note the memory of what comes out."""
        found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, Tensor):
                self._note(leaf.untyped_storage())
        return found

    def _note(self, storage: Any) -> None:
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()
        self._known[key] = weakref.finalize(storage, self._forget, key, size)
        self.live += size
        self.peak = max(self.peak, self.live)

    def _forget(self, key: int, size: int) -> None:
        self.live -= size
        del self._known[key]

    def restart(self) -> None:
        """Begin a new peak at what is alive now."""
        self.peak = self.live


@contextmanager
def without_weights(device: str) -> Iterator[None]:
    """Have `unsee.autoclasses.load` read configs only for the block, and make models as they would be on cpu or cuda."""
    token = _DEVICE.set(device)
    try:
        yield
    finally:
        _DEVICE.reset(token)


def hollow_model(path: Path | str) -> Module | None:
    """Return the model of a folder or id on the meta device inside `without_weights`, else None."""
    device = _DEVICE.get()
    if not device:
        return None
    config = AutoConfig.from_pretrained(path)
    dtype = torch.float32 if device == "cpu" else config.dtype or torch.float32
    with torch.device("meta"):
        model: Module = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    return model.eval()


@contextmanager
def weightless(model: Module) -> Iterator[Module]:
    """Give a model on the meta device hollow tensors on the CPU for the block, so that everything acts as there."""
    with FakeTensorMode():
        known: dict[int, Tensor] = {}
        for module in model.modules():
            tables: Any = (module._parameters, module._buffers)
            for table in tables:
                for name, tensor in table.items():
                    if tensor is not None:
                        table[name] = known.setdefault(id(tensor), _hollow(tensor))
        yield model


def _hollow(tensor: Tensor) -> Tensor:
    made = torch.empty(tensor.shape, dtype=tensor.dtype)
    return Parameter(made, requires_grad=tensor.requires_grad) if isinstance(tensor, Parameter) else made
