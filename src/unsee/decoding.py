"""Decoding with shared prefixes: an image is encoded and prefilled once for all questions about it.

Groups of prompts (`unsee.prefixes`) are prefilled together into a pool of keys and values. Questions then go through the
model in waves sorted by length. A row of a wave is a copy of one prefix; where the prefix is long, several questions share
the row, side by side in lanes that do not see each other, so that the prefix is held and read once for all of them. Rows and
lanes that have stopped are taken out of the wave as soon as enough of them have.
Shapes: r rows, l lanes, s suffix tokens, k columns of keys and values, n = r times l, v vocabulary, h heads, d head width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import pad
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from unsee.batching import device_of
from unsee.features import encoded
from unsee.padding import merge
from unsee.positions import alike
from unsee.prefixes import Group
from unsee.steering import Requests

POOL_BYTES: Final = 512 * 2**20
"""Keys and values of prefixes kept at once."""
PREFILL_TOKENS: Final = 8192
"""Prefix tokens that go through the model at once."""
LIKELY: Final = 32
"""Tokens an answer is taken to have when lanes are planned [inferred]."""
KEEP: Final = 0.8
"""A wave is compacted when fewer than this share of its lanes are still at work [inferred]."""

Draw = Callable[[Tensor, Sequence[int]], Tensor]
"""(logits_nv, request of each row or -1) -> logits whose maximum is the drawn token."""


@dataclass(frozen=True)
class _Cell:
    """Questions that share one row of a wave."""

    group: int
    """Place of the prefix in the pool."""
    places: tuple[int, ...]
    suffixes: tuple[tuple[int, ...], ...]
    image: bool = False
    """Whether the prefix has an image."""

    @property
    def longest(self) -> int:
        return max(map(len, self.suffixes))


@dataclass(frozen=True)
class _Pool:
    """Prefilled prefixes, left-padded."""

    layers: list[tuple[Tensor, Tensor]]
    """Keys and values [groups, h, k, d] of each layer."""
    real_gk: Tensor
    """Where tokens are, as opposed to padding."""
    next_g: Tensor
    """Position of the first token behind each."""


class _Room(DynamicLayer):
    """Keys and values of one layer in a buffer with room for the tokens to come."""

    def __init__(self, keys: Tensor, values: Tensor, room: int) -> None:
        super().__init__()
        self.used = keys.shape[2]
        self.keys, self.values = pad(keys, (0, 0, 0, room)), pad(values, (0, 0, 0, room))
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        """Write the new columns behind the old ones and return all."""
        start, self.used = self.used, self.used + key_states.shape[2]
        self.keys[:, :, start : self.used] = key_states
        self.values[:, :, start : self.used] = value_states
        return self.keys[:, :, : self.used], self.values[:, :, : self.used]

    def get_seq_length(self) -> int:
        """Return the number of columns in use."""
        return self.used

    def grow(self, room: int) -> None:
        """Make room for more columns."""
        self.keys, self.values = pad(self.keys, (0, 0, 0, room)), pad(self.values, (0, 0, 0, room))

    def take(self, row_r: Tensor, column_rk: Tensor | None) -> None:
        """Keep these rows and, if given, these columns of each."""
        if column_rk is None:
            self.keys, self.values = self.keys[row_r], self.values[row_r]
            return
        taken = (self.keys.transpose(1, 2), self.values.transpose(1, 2))
        self.keys, self.values = (one[row_r[:, None], column_rk].transpose(1, 2) for one in taken)
        self.used = column_rk.shape[1]


def decode(
    model: Module,
    groups: Iterator[Group],
    *,
    max_new_tokens: int,
    batch_size: int,
    stops: set[int],
    pad_id: int,
    draw: Draw | None = None,
) -> Iterator[tuple[int, list[int]]]:
    """Yield (place of the request, generated tokens with the stop token), in the order in which waves end."""
    for chunk in _chunks(groups, _bytes_per_token(model)):
        pool = _prefilled(model, chunk, pad_id, batch_size)
        cells = [cell for place, group in enumerate(chunk) for cell in _cells(place, group, max_new_tokens, batch_size)]
        for wave in _waves(cells, batch_size):
            yield from _Wave(model, pool, wave, pad_id).run(max_new_tokens, stops, draw)


def _bytes_per_token(model: Any) -> int:
    """Return what the keys and values of one token take."""
    text = model.config.get_text_config().to_dict()
    heads = text.get("num_key_value_heads") or text["num_attention_heads"]
    width = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
    return int(2 * text["num_hidden_layers"] * heads * width * model.get_input_embeddings().weight.element_size())


def _chunks(groups: Iterator[Group], token_bytes: int) -> Iterator[list[Group]]:
    """Put groups together whose prefixes have similar lengths and fit in the pool."""
    chunk: list[Group] = []
    for group in groups:
        lengths = [group.shared, *(other.shared for other in chunk)]
        full = token_bytes * max(lengths) * len(lengths) > POOL_BYTES
        if chunk and (full or 2 * min(lengths) < max(lengths)):
            yield chunk
            chunk = []
        chunk.append(group)
    if chunk:
        yield chunk


def _cells(place: int, group: Group, max_new_tokens: int, batch_size: int) -> Iterator[_Cell]:
    """Yield the questions of a group by rows: as many lanes as may be without costing more than the prefix."""
    suffixes = [ids[group.shared :] for ids in group.ids]
    order = sorted(range(len(suffixes)), key=lambda i: len(suffixes[i]))
    own = sum(map(len, suffixes)) / len(suffixes) + min(max_new_tokens, LIKELY)
    lanes = min(max(1, int(group.shared / own)), batch_size, len(order))
    rows = -(-len(order) // lanes)
    for row in range(rows):
        chosen = order[row * len(order) // rows : (row + 1) * len(order) // rows]
        yield _Cell(
            place, tuple(group.places[i] for i in chosen), tuple(suffixes[i] for i in chosen), bool(group.image)
        )


def _waves(cells: Sequence[_Cell], batch_size: int) -> Iterator[list[_Cell]]:
    """Put cells of like width and length together, at most `batch_size` lanes at once."""
    wave: list[_Cell] = []
    for cell in sorted(cells, key=lambda cell: (len(cell.places), cell.longest, cell.suffixes)):
        if wave and (len(wave) + 1) * len(cell.places) > batch_size:
            yield wave
            wave = []
        wave.append(cell)
    if wave:
        yield wave


def _prefilled(model: Any, chunk: Sequence[Group], pad_id: int, batch_size: int) -> _Pool:
    """Run the prefixes through the model, a bounded number of tokens at once."""
    width = max(group.shared for group in chunk)
    step = max(1, min(batch_size, PREFILL_TOKENS // max(1, width)))
    parts = [_prefill(model, chunk[start : start + step], pad_id, width) for start in range(0, len(chunk), step)]
    if len(parts) == 1:
        return parts[0]
    layers = [
        (torch.cat([keys for keys, _ in layer]), torch.cat([values for _, values in layer]))
        for layer in zip(*(part.layers for part in parts), strict=True)
    ]
    return _Pool(layers, torch.cat([part.real_gk for part in parts]), torch.cat([part.next_g for part in parts]))


def _prefill(model: Any, groups: Sequence[Group], pad_id: int, width: int) -> _Pool:
    rows = [group.head() for group in groups]
    inputs = {key: value.to(device_of(model)) for key, value in merge(rows, pad_id).items()}
    real_gk = inputs["attention_mask"].bool()
    places, next_g = _places(groups, real_gk)
    cache = DynamicCache(config=model.config)
    with Requests(model, [bool(group.image) for group in groups]).prefixes():
        model(
            **encoded(model, rows, [group.image for group in groups], inputs),
            position_ids=places,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
    lead = width - real_gk.shape[1]
    layers = [(pad(layer.keys, (0, 0, lead, 0)), pad(layer.values, (0, 0, lead, 0))) for layer in cache.layers]
    return _Pool(layers, pad(real_gk, (lead, 0)), next_g)


def _places(groups: Sequence[Group], real_gk: Tensor) -> tuple[Tensor, Tensor]:
    """Return the positions of left-padded prefixes, [g, k] or [3, g, k], and the position behind each."""
    width = real_gk.shape[1]
    rows = alike([pad(group.positions(torch.arange(group.shared)), (width - group.shared, 0)) for group in groups])
    behind = [int(group.positions(torch.tensor([group.shared])).max()) for group in groups]
    places = torch.stack(rows, dim=1).squeeze(0)
    return places.to(real_gk.device), torch.tensor(behind, device=real_gk.device)


class _Wave:
    """Questions that are answered together."""

    def __init__(self, model: Any, pool: _Pool, cells: Sequence[_Cell], pad_id: int) -> None:
        """Copy the prefixes into place; nothing goes through the model yet."""
        self.model, self.pad_id = model, pad_id
        self.lanes = max(len(cell.places) for cell in cells)
        self.width = max(cell.longest for cell in cells)
        room = self.lanes * (self.width + LIKELY)
        device = pool.real_gk.device
        row_r = torch.tensor([cell.group for cell in cells], device=device)
        self.cache = Cache(layers=[_Room(keys[row_r], values[row_r], room) for keys, values in pool.layers])
        self.owners = [[*cell.places, *[-1] * (self.lanes - len(cell.places))] for cell in cells]
        self.said: dict[int, list[int]] = {place: [] for cell in cells for place in cell.places}
        self.used = pool.real_gk.shape[1]
        real_rk = pool.real_gk[row_r]
        self.next_rl = pool.next_g[row_r, None].expand(-1, self.lanes)
        dtype = pool.layers[0][0].dtype
        self.blind = torch.finfo(dtype).min
        self.bias_rlk = torch.full((len(cells), self.lanes, self.used + room), self.blind, dtype=dtype, device=device)
        self.bias_rlk[:, :, : self.used].masked_fill_(real_rk[:, None], 0)
        self.cells = cells
        self.steered = Requests(model, [cell.image for cell in cells])

    def run(self, max_new_tokens: int, stops: set[int], draw: Draw | None) -> Iterator[tuple[int, list[int]]]:
        """Answer; a question's tokens are complete when all of its wave are."""
        logits_nv = self._begin()
        for step in range(max_new_tokens):
            scores_nv = logits_nv.float()
            if draw is not None:
                scores_nv = draw(scores_nv, [owner for row in self.owners for owner in row])
            token_rl = scores_nv.argmax(-1).view(len(self.owners), -1)
            alive = self._note(token_rl.tolist(), stops)
            if not alive or step + 1 == max_new_tokens:
                break
            if alive <= KEEP * token_rl.numel():
                token_rl = self._compact(token_rl)
            logits_nv = self._step(token_rl)
        yield from self.said.items()

    def _begin(self) -> Tensor:
        """Run all suffixes through the model, each seeing its prefix and itself; return logits_nv of their ends."""
        rows, lanes, width, start = len(self.cells), self.lanes, self.width, self.used
        empty: tuple[int, ...] = ()
        padded = [
            [[-1] * (width - len(ids)) + list(ids) for ids in (*cell.suffixes, *[empty] * (lanes - len(cell.suffixes)))]
            for cell in self.cells
        ]
        ids_rls = torch.tensor(padded, device=self.bias_rlk.device)
        real_rls = ids_rls >= 0
        before = real_rls.cumsum(-1)
        position_rls = (self.next_rl[..., None] + before - 1).clamp(min=0)
        own = torch.eye(lanes, dtype=torch.bool, device=ids_rls.device)[None, :, None, :, None]
        order = torch.ones(width, width, dtype=torch.bool, device=ids_rls.device).tril()[None, None, :, None, :]
        itself = own & torch.eye(width, dtype=torch.bool, device=ids_rls.device)[None, None, :, None, :]
        sees = (own & order & real_rls[:, None, None]) | itself
        bias = torch.zeros(sees.shape, dtype=self.bias_rlk.dtype, device=ids_rls.device).masked_fill_(~sees, self.blind)
        prefix = self.bias_rlk[:, :, None, :start].expand(-1, -1, width, -1)
        mask = torch.cat([prefix.reshape(rows, lanes * width, start), bias.reshape(rows, lanes * width, -1)], -1)
        ends = torch.arange(width - 1, lanes * width, width, device=ids_rls.device)
        with self.steered.prompts(ends, real_rls.any(-1)):
            output = self.model(
                input_ids=ids_rls.clamp(min=0).where(real_rls, self.pad_id).view(rows, -1),
                position_ids=position_rls.view(rows, -1),
                attention_mask=mask[:, None],
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=1 if lanes == 1 else ends,
            )
        self.used = start + lanes * width
        seen = (own[:, :, 0] & real_rls[:, None]).view(rows, lanes, -1)
        self.bias_rlk[:, :, start : self.used].masked_fill_(seen, 0)
        self.next_rl = self.next_rl + before[..., -1]
        return output.logits.flatten(0, 1)

    def _step(self, token_rl: Tensor) -> Tensor:
        """Run one token of each lane through the model; return logits_nv."""
        rows, lanes = token_rl.shape
        if self.used + lanes > self.bias_rlk.shape[2]:
            self._grow(lanes * LIKELY)
        new = self.bias_rlk[:, :, self.used : self.used + lanes]
        new.diagonal(dim1=1, dim2=2).zero_()
        self.used += lanes
        with self.steered.answers():
            output = self.model(
                input_ids=token_rl,
                position_ids=self.next_rl,
                attention_mask=self.bias_rlk[:, None, :, : self.used],
                past_key_values=self.cache,
                use_cache=True,
            )
        self.next_rl = self.next_rl + 1
        return output.logits.view(rows * lanes, -1)

    def _note(self, tokens: Sequence[Sequence[int]], stops: set[int]) -> int:
        """Write down what was said, let lanes that have stopped go; return how many are left."""
        left = 0
        for row, (owners, said) in enumerate(zip(self.owners, tokens, strict=True)):
            for lane, (owner, token) in enumerate(zip(owners, said, strict=True)):
                if owner >= 0:
                    self.said[owner].append(token)
                    left += token not in stops
                    self.owners[row][lane] = -1 if token in stops else owner
        return left

    def _compact(self, token_rl: Tensor) -> Tensor:
        """Take out rows, and lanes where all rows can spare one, that have stopped; return the tokens of those that stay."""
        rows = [row for row, owners in enumerate(self.owners) if any(owner >= 0 for owner in owners)]
        lanes = max(sum(owner >= 0 for owner in self.owners[row]) for row in rows)
        order = [sorted(range(self.lanes), key=lambda lane: self.owners[row][lane] < 0)[:lanes] for row in rows]
        if len(rows) == len(self.owners) and lanes == self.lanes:
            return token_rl
        device = token_rl.device
        row_r, lane_rl = torch.tensor(rows, device=device), torch.tensor(order, device=device)
        self.owners = [[self.owners[row][lane] for lane in kept] for row, kept in zip(rows, order, strict=True)]
        self.next_rl = self.next_rl[row_r[:, None], lane_rl]
        self.bias_rlk = self.bias_rlk[row_r[:, None], lane_rl]
        columns = self._columns() if lanes < self.lanes else None
        for layer in self.cache.layers:
            layer.take(row_r, columns)
        self.lanes = lanes
        self.steered.take(row_r, lane_rl)
        return token_rl[row_r[:, None], lane_rl]

    def _columns(self) -> Tensor:
        """Drop the columns that no lane of a row sees; return those that are kept."""
        needed_rk = (self.bias_rlk[:, :, : self.used] == 0).any(1)
        column_rk = (~needed_rk).long().argsort(dim=-1, stable=True)[:, : int(needed_rk.sum(-1).max())]
        index = column_rk[:, None].expand(-1, self.bias_rlk.shape[1], -1)
        self.bias_rlk = self.bias_rlk.gather(2, index)
        self.used = column_rk.shape[1]
        return column_rk

    def _grow(self, room: int) -> None:
        self.bias_rlk = pad(self.bias_rlk, (0, room), value=self.blind)
        for layer in self.cache.layers:
            layer.grow(self.bias_rlk.shape[2] - layer.keys.shape[2])
