"""KV cache layers with preallocated memory, and the cache's changing names.

`DynamicCache` concatenates keys and values at every token; these layers write into a buffer. The plain way is `model.generate`.
Shapes: r rows, k columns of keys and values, h heads, d head width.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

from torch import Tensor
from torch.nn import Module
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from unsee.compat.models import unwrapped

NAMES: Final = ("cache", "past_key_values")
"""Names of the KV cache in `forward` and in outputs of transformers, newest first (`cache` since 5.24)."""


class BufferedLayer(DynamicLayer):
    """KV cache layer in a preallocated buffer."""

    def __init__(self, keys: Tensor, values: Tensor, row_r: Tensor, room: int) -> None:
        super().__init__()
        self.used = keys.shape[2]
        self.keys, self.values = _roomy(keys[row_r], room), _roomy(values[row_r], room)
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append the new columns and return all."""
        start, self.used = self.used, self.used + key_states.shape[2]
        self.keys[:, :, start : self.used] = key_states
        self.values[:, :, start : self.used] = value_states
        return self.keys[:, :, : self.used], self.values[:, :, : self.used]

    def get_seq_length(self) -> int:
        """Return the number of columns in use."""
        return self.used

    def grow(self, room: int) -> None:
        """Enlarge the buffer."""
        self.keys = _roomy(self.keys, room)
        self.values = _roomy(self.values, room)

    def take(self, row_r: Tensor, column_rk: Tensor | None) -> None:
        """Keep these rows and, if given, these columns of each."""
        if column_rk is None:
            room = self.keys.shape[2] - self.used
            self.keys = _roomy(self.keys[row_r, :, : self.used], room)
            self.values = _roomy(self.values[row_r, :, : self.used], room)
            return
        buffers = (self.keys.transpose(1, 2), self.values.transpose(1, 2))
        self.keys, self.values = (buffer[row_r[:, None], column_rk].transpose(1, 2) for buffer in buffers)
        self.used = column_rk.shape[1]


def _roomy(columns: Tensor, room: int) -> Tensor:
    """Return the columns in a larger buffer, whose memory is not used before it is written."""
    rows, heads, width, depth = columns.shape
    wider = columns.new_empty(rows, heads, width + room, depth)
    wider[:, :, :width] = columns
    return wider


def empty(model: Module) -> tuple[Cache, dict[str, Any]]:
    """Return an empty KV cache as arguments of `forward`."""
    kv_cache = DynamicCache(config=unwrapped(model).config)
    return kv_cache, cache_arguments(model, kv_cache)


def keys_and_values(filled: Cache) -> list[tuple[Tensor, Tensor]]:
    """Return keys and values [r, h, k, d] of each layer of a filled KV cache."""
    return [(layer.keys, layer.values) for layer in filled.layers]


def of_layers(layers: Sequence[DynamicLayer]) -> Cache:
    """Return a KV cache of these layers."""
    return Cache(layers=list(layers))


def cache_arguments(model: Module, kv_cache: Cache) -> dict[str, Any]:
    """Return the arguments of `forward` that pass a KV cache, under the model's name for it."""
    return {_name(type(unwrapped(model)).forward): kv_cache, "use_cache": True}


def cache_in(values: Mapping[str, Any]) -> Any | None:
    """Return the KV cache among arguments or outputs of `forward`, or None without one."""
    return next((values[name] for name in NAMES if values.get(name) is not None), None)


@cache
def _name(forward: Any) -> str:
    parameters = inspect.signature(forward).parameters
    return next((name for name in NAMES if name in parameters), NAMES[-1])
