"""Identity and history of tensors: storages, in-place versions, operands of graph nodes, nested outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.autograd.graph import Node
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten


def storage_id(tensor: Tensor) -> int:
    """Return what tells living storages apart; unlike `data_ptr` it exists for tensors without data too."""
    return int(tensor.untyped_storage()._cdata)


def version(tensor: Tensor) -> int:
    """Return how often a tensor was changed in place."""
    return int(tensor._version)


def operands(node: Node) -> tuple[Tensor, Tensor]:
    """Return the two tensors that a product node keeps for its backward pass."""
    kept: Any = node
    return kept._saved_self, kept._saved_other


def leaves(nested: Any) -> list[Any]:
    """Return the leaves of nested containers, model outputs included."""
    return tree_leaves(nested)


def flattened(nested: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """Return the leaves of nested containers and what puts other leaves into the same containers."""
    found, spec = tree_flatten(nested)
    return found, lambda others: tree_unflatten(others, spec)
