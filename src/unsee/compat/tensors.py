"""Tensor identity and graph internals: storages, versions, saved operands, nested outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten


def storage_id(tensor: Tensor) -> int:
    """Return an identifier of a live storage, also for tensors without data."""
    return int(tensor.untyped_storage()._cdata)


def plain_tensors(tensor: Any) -> list[Tensor]:
    """Return the plain tensors that hold the values of a tensor, several if it is quantised."""
    if state := getattr(tensor, "quant_state", None):  # bitsandbytes: codes, and scales beside them
        scales = [value for value in state.as_dict().values() if isinstance(value, Tensor)]
        return [tensor.data.as_subclass(Tensor), *scales]
    if not hasattr(tensor, "__tensor_flatten__"):
        return [tensor]
    names, _ = tensor.__tensor_flatten__()
    return [plain for name in names for plain in plain_tensors(getattr(tensor, name))]


def raw(tensor: Tensor) -> Iterator[Any]:
    """Yield the bytes of a tensor's values as arrays, for hashes."""
    for plain in plain_tensors(tensor):
        yield plain.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()


def version(tensor: Tensor) -> int:
    """Return the in-place version counter of a tensor."""
    return int(tensor._version)


def operands(node: Node) -> tuple[Tensor, Tensor]:
    """Return the two operands saved by a product node for backward."""
    any_node: Any = node
    return any_node._saved_self, any_node._saved_other


def leaves(nested: Any) -> list[Any]:
    """Return the leaves of nested containers, model outputs included."""
    return tree_leaves(nested)


def flattened(nested: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """Return the leaves of nested containers and a function that rebuilds them."""
    values, spec = tree_flatten(nested)
    return values, lambda new_values: tree_unflatten(new_values, spec)
