"""KV cache of prompt prefixes, prefilled once and copied to all rows that need it.

Shapes: g groups of prompts, r rows, k columns of keys and values, h heads, d head width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import pad

from unsee.api.fast_paths import Engine
from unsee.compat import cache
from unsee.compat.cache import BufferedLayer
from unsee.inference.batching import device_of
from unsee.inference.prefix_groups import Group
from unsee.inference.vision_cache import with_features
from unsee.models.padding import merge
from unsee.models.positions import alike
from unsee.models.steering.hooks import Requests

POOL_BYTES: Final = 512 * 2**20
"""Memory for the KV caches of prefixes."""
PREFILL_TOKENS: Final = 8192
"""Prefix tokens per forward pass."""
CPU_TOKENS: Final = 1024
"""The same on a CPU, where more are no faster."""


@dataclass(frozen=True)
class Pool:
    """Prefilled prefixes, left-padded."""

    layers: list[tuple[Tensor, Tensor]]
    """Keys and values [groups, h, k, d] of each layer; empty after the last copy."""
    real_gk: Tensor
    """Mask of tokens as opposed to padding."""
    next_g: Tensor
    """Position id after each prefix."""

    def layer_caches(self, row_r: Tensor, room: int, *, is_last: bool) -> Iterator[BufferedLayer]:
        """Yield the cache of each layer for a wave with these prefixes as rows. The last one empties the pool."""
        for index in range(len(self.layers)):
            keys, values = self.layers.pop(0) if is_last else self.layers[index]
            yield BufferedLayer(keys, values, row_r, room)


def bytes_per_token(model: Any) -> int:
    """Return the KV cache size of one token."""
    text_config = model.config.get_text_config().to_dict()
    heads = text_config.get("num_key_value_heads") or text_config["num_attention_heads"]
    width = text_config.get("head_dim") or text_config["hidden_size"] // text_config["num_attention_heads"]
    return int(
        2 * text_config["num_hidden_layers"] * heads * width * model.get_input_embeddings().weight.element_size()
    )


def chunks(groups: Iterator[Group], token_bytes: int) -> Iterator[list[Group]]:
    """Group prefixes of similar length that fit in the pool together."""
    chunk: list[Group] = []
    for group in groups:
        lengths = [group.shared, *(member.shared for member in chunk)]
        full = token_bytes * max(lengths) * len(lengths) > POOL_BYTES
        if chunk and (full or 2 * min(lengths) < max(lengths)):
            yield chunk
            chunk = []
        chunk.append(group)
    if chunk:
        yield chunk


def prefilled(model: Any, chunk: Sequence[Group], pad_id: int, batch_size: int, engine: Engine) -> Pool:
    """Prefill the prefixes, a bounded number of tokens at a time.

    Args:
        model: Decoder in eval mode.
        chunk: Groups whose KV caches fit in the pool (`chunks`).
        pad_id: Id of the padding token.
        batch_size: Most prefixes per forward pass.
        engine: Fast paths in use; `vision_features` puts features in place of pixels.
    """
    width = max(group.shared for group in chunk)
    tokens = CPU_TOKENS if device_of(model).type == "cpu" else PREFILL_TOKENS
    step = max(1, min(batch_size, tokens // max(1, width)))
    pools = [_prefill(model, chunk[i : i + step], pad_id, width, engine) for i in range(0, len(chunk), step)]
    if len(pools) == 1:
        return pools[0]
    layers = [_concatenate_passes([pool.layers.pop(0) for pool in pools]) for _ in range(len(pools[0].layers))]
    return Pool(layers, torch.cat([pool.real_gk for pool in pools]), torch.cat([pool.next_g for pool in pools]))


def _concatenate_passes(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Concatenate the keys and values of one layer from several passes."""
    return torch.cat([keys for keys, _ in pairs]), torch.cat([values for _, values in pairs])


def _prefill(model: Any, groups: Sequence[Group], pad_id: int, width: int, engine: Engine) -> Pool:
    rows = [group.head() for group in groups]
    inputs = {key: value.to(device_of(model)) for key, value in merge(rows, pad_id).items()}
    real_gk = inputs["attention_mask"].bool()
    position_ids, next_g = _places(groups, real_gk)
    kv_cache, cache_inputs = cache.empty(model)
    model_inputs = with_features(model, rows, [group.image for group in groups], inputs, engine)
    with Requests(model, [bool(group.image) for group in groups]).prefixes():
        model(
            **model_inputs,
            position_ids=position_ids,
            **cache_inputs,
            logits_to_keep=1,
        )
    pad_width = width - real_gk.shape[1]
    layers = [
        (_pad_left(keys, pad_width), _pad_left(values, pad_width)) for keys, values in cache.keys_and_values(kv_cache)
    ]
    return Pool(layers, pad(real_gk, (pad_width, 0)), next_g)


def _pad_left(columns: Tensor, pad_width: int) -> Tensor:
    """Pad the columns on the left."""
    return pad(columns, (0, 0, pad_width, 0)) if pad_width else columns


def _places(groups: Sequence[Group], real_gk: Tensor) -> tuple[Tensor, Tensor]:
    """Return the position ids of left-padded prefixes, [g, k] or [3, g, k], and the next one."""
    width = real_gk.shape[1]
    rows = alike([pad(group.positions(torch.arange(group.shared)), (width - group.shared, 0)) for group in groups])
    next_positions = [int(group.positions(torch.tensor([group.shared])).max()) for group in groups]
    position_ids = torch.stack(rows, dim=1).squeeze(0)
    return position_ids.to(real_gk.device), torch.tensor(next_positions, device=real_gk.device)
