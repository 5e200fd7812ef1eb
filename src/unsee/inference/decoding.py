"""Decoding with shared prefixes: one image encoding and prefill for all its questions.

Groups of prompts (`unsee.inference.prefix_groups`) are prefilled together into a pool of KV caches. Questions are then
decoded in waves sorted by length. A row of a wave is a copy of one prefix. Where the prefix is long, several questions share
the row in lanes, which are masked from each other, so that the prefix is stored and read once for all of them. Example,
three questions about image A (576 tokens) and one about image B, two lanes per row:

    row 0    KV cache of A | lane 0: question 1, its answer | lane 1: question 2, its answer
    row 1    KV cache of A | lane 0: question 3, its answer | lane 1: empty
    row 2    KV cache of B | lane 0: question 4, its answer | lane 1: empty

Each step runs one token per lane. Finished rows and lanes are removed from the wave once there are enough of them.
Shapes: r rows, l lanes, c columns of suffixes, k columns of keys and values, n = r times l, v vocabulary, h heads,
d head width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, zip_longest
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import pad

from unsee.api.fast_paths import Engine
from unsee.compat import cache
from unsee.errors import NotFiniteError
from unsee.inference.prefix_cache import Pool, bytes_per_token, chunks, prefilled
from unsee.inference.prefix_groups import Group
from unsee.models.steering.hooks import Requests

LIKELY: Final = 32
"""Assumed response length for planning lanes [inferred]."""
KEEP: Final = 0.8
"""A wave is compacted when fewer than this share of its lanes are active [inferred]."""

Draw = Callable[[Tensor, Sequence[int]], Tensor]
"""(logits_nv, request of each row or -1) -> logits whose maximum is the drawn token."""


@dataclass(frozen=True)
class _Cell:
    """Questions that share one row of a wave."""

    group: int
    """Index of the prefix in the pool."""
    places: tuple[int, ...]
    suffixes: tuple[tuple[int, ...], ...]
    image: bool = False
    """Whether the prefix has an image."""

    @property
    def longest(self) -> int:
        return max(map(len, self.suffixes))


def decode(
    model: Module,
    groups: Iterator[Group],
    *,
    max_new_tokens: int,
    batch_size: int,
    stops: set[int],
    pad_id: int,
    engine: Engine,
    draw: Draw | None = None,
) -> Iterator[tuple[int, list[int]]]:
    """Yield (index of the request, generated tokens with EOS), in order of completion.

    Args:
        model: Decoder in eval mode.
        groups: Prompts by common prefix, encoded when they are requested.
        max_new_tokens: Most tokens of a response, EOS included.
        batch_size: Rows per wave; a row may hold several lanes.
        stops: Ids of the tokens that end a response.
        pad_id: Id of the padding token.
        engine: Fast paths in use; `vision_features` puts features in place of pixels.
        draw: Draws the next tokens; None = greedy.
    """
    for chunk in chunks(groups, bytes_per_token(model)):
        pool = prefilled(model, chunk, pad_id, batch_size, engine)
        waves = _plan_waves(chunk, max_new_tokens, batch_size)
        for wave_index, cells in enumerate(waves):
            is_last = wave_index + 1 == len(waves)
            yield from _Wave(model, pool, cells, pad_id, is_last=is_last).run(max_new_tokens, stops, draw)
        pool.layers.clear()


def _plan_waves(groups: Sequence[Group], max_new_tokens: int, batch_size: int) -> list[list[_Cell]]:
    """Return the waves for these groups."""
    cells = [
        cell
        for group_index, group in enumerate(groups)
        for cell in _cells(group_index, group, max_new_tokens, batch_size)
    ]
    return list(_waves(cells, batch_size))


def _cells(group_index: int, group: Group, max_new_tokens: int, batch_size: int) -> Iterator[_Cell]:
    """Yield a group's questions by rows, with as many lanes as cost no more than the prefix."""
    suffixes = [ids[group.shared :] for ids in group.ids]
    order = sorted(range(len(suffixes)), key=lambda i: len(suffixes[i]))
    lane_tokens = sum(map(len, suffixes)) / len(suffixes) + min(max_new_tokens, LIKELY)
    lanes = min(max(1, int(group.shared / lane_tokens)), batch_size, len(order))
    rows = -(-len(order) // lanes)
    for row in range(rows):
        indices = order[row * len(order) // rows : (row + 1) * len(order) // rows]
        yield _Cell(
            group_index, tuple(group.places[i] for i in indices), tuple(suffixes[i] for i in indices), bool(group.image)
        )


def _waves(cells: Sequence[_Cell], batch_size: int) -> Iterator[list[_Cell]]:
    """Group cells of similar width and length, at most `batch_size` lanes per wave."""
    wave: list[_Cell] = []
    for cell in sorted(cells, key=lambda cell: (len(cell.places), cell.longest, cell.suffixes)):
        if wave and (len(wave) + 1) * len(cell.places) > batch_size:
            yield wave
            wave = []
        wave.append(cell)
    if wave:
        yield wave


class _Wave:
    """Questions that are decoded together."""

    def __init__(self, model: Any, pool: Pool, cells: Sequence[_Cell], pad_id: int, *, is_last: bool) -> None:
        """Place the prefixes, out of the pool for its last wave. Nothing is run yet."""
        self.model, self.pad_id = model, pad_id
        self.lanes = max(len(cell.places) for cell in cells)
        self.widths = [
            max(map(len, suffixes)) for suffixes in zip_longest(*(cell.suffixes for cell in cells), fillvalue=())
        ]
        room = sum(self.widths) + self.lanes * LIKELY
        device = pool.real_gk.device
        row_r = torch.tensor([cell.group for cell in cells], device=device)
        dtype = pool.layers[0][0].dtype
        self.cache = cache.of_layers(list(pool.layer_caches(row_r, room, is_last=is_last)))
        self.owners = [[*cell.places, *[-1] * (self.lanes - len(cell.places))] for cell in cells]
        self.token_ids: dict[int, list[int]] = {index: [] for cell in cells for index in cell.places}
        self.width = pool.real_gk.shape[1]
        real_rk = pool.real_gk[row_r]
        self.next_rl = pool.next_g[row_r, None].expand(-1, self.lanes)
        self.blind = torch.finfo(dtype).min
        self.bias_rlk = torch.full((len(cells), self.lanes, self.width + room), self.blind, dtype=dtype, device=device)
        self.bias_rlk[:, :, : self.width].masked_fill_(real_rk[:, None], 0)
        self.cells = cells
        self.steered = Requests(model, [cell.image for cell in cells])

    def run(self, max_new_tokens: int, stops: set[int], draw: Draw | None) -> Iterator[tuple[int, list[int]]]:
        """Decode until every question of the wave is complete."""
        logits_nv = self._begin()
        for step in range(max_new_tokens):
            scores_nv = logits_nv.float()
            if draw is not None:
                scores_nv = draw(scores_nv, [owner for row in self.owners for owner in row])
            best_n, token_n = scores_nv.max(-1)
            self._require_numbers(best_n.tolist())
            token_rl = token_n.view(len(self.owners), -1)
            active = self._note(token_rl.tolist(), stops)
            if not active or step + 1 == max_new_tokens:
                break
            if active <= KEEP * token_rl.numel():
                token_rl = self._compact(token_rl)
            logits_nv = self._step(token_rl)
        yield from self.token_ids.items()

    def _require_numbers(self, best_logits: Sequence[float]) -> None:
        """Raise if the largest logit of an active lane is NaN, where argmax is arbitrary."""
        owners = (owner for row in self.owners for owner in row)
        for owner, logit in zip(owners, best_logits, strict=True):
            if owner >= 0 and not math.isfinite(logit):
                raise NotFiniteError(f"request {owner + 1}", owner)

    def _begin(self) -> Tensor:
        """Run all suffixes behind their prefixes, and return logits_nv of their ends."""
        start, device = self.width, self.bias_rlk.device
        ids_rc = torch.tensor([self._laid(cell) for cell in self.cells], device=device)
        rows, columns = ids_rc.shape
        real_rc = ids_rc >= 0
        lane_c = torch.arange(self.lanes, device=device).repeat_interleave(torch.tensor(self.widths, device=device))
        in_lane_lc = lane_c == torch.arange(self.lanes, device=device)[:, None]
        visible_rlc = in_lane_lc & real_rc[:, None]
        count_rlc = visible_rlc.cumsum(-1)
        position_rc = self.next_rl[:, lane_c] + (count_rlc * in_lane_lc).sum(1) - 1
        diagonal_cc = torch.eye(columns, dtype=torch.bool, device=device)
        attends_rcc = (visible_rlc[:, lane_c] & torch.ones_like(diagonal_cc).tril()) | diagonal_cc
        mask = torch.full((rows, columns, start + columns), self.blind, dtype=self.bias_rlk.dtype, device=device)
        mask[:, :, :start] = self.bias_rlk[:, :1, :start]
        mask[:, :, start:].masked_fill_(attends_rcc, 0)
        ends = torch.tensor(list(accumulate(self.widths)), device=device) - 1
        with self.steered.prompts(ends, real_rc[:, ends]):
            output = self.model(
                input_ids=ids_rc.where(real_rc, self.pad_id),
                position_ids=position_rc.clamp(min=0),
                attention_mask=mask[:, None],
                **cache.cache_arguments(self.model, self.cache),
                logits_to_keep=1 if self.lanes == 1 else ends,
            )
        self.width = start + columns
        self.bias_rlk[:, :, start : self.width].masked_fill_(visible_rlc, 0)
        self.next_rl = self.next_rl + count_rlc[..., -1]
        return output.logits.flatten(0, 1)

    def _laid(self, cell: _Cell) -> list[int]:
        """Return the suffixes of a row side by side, right-aligned in the columns of its lane.

        -1 is padding.
        """
        suffixes: list[tuple[int, ...]] = [*cell.suffixes, *[()] * (self.lanes - len(cell.suffixes))]
        lanes = zip(self.widths, suffixes, strict=True)
        return [token for width, ids in lanes for token in (*[-1] * (width - len(ids)), *ids)]

    def _step(self, token_rl: Tensor) -> Tensor:
        """Run one token per lane, and return logits_nv."""
        rows, lanes = token_rl.shape
        if self.width + lanes > self.bias_rlk.shape[2]:
            self._grow(lanes * LIKELY)
        new_bias_rll = self.bias_rlk[:, :, self.width : self.width + lanes]
        new_bias_rll.diagonal(dim1=1, dim2=2).zero_()
        self.width += lanes
        with self.steered.answers():
            output = self.model(
                input_ids=token_rl,
                position_ids=self.next_rl,
                attention_mask=self.bias_rlk[:, None, :, : self.width],
                **cache.cache_arguments(self.model, self.cache),
            )
        self.next_rl = self.next_rl + 1
        return output.logits.view(rows * lanes, -1)

    def _note(self, tokens: Sequence[Sequence[int]], stops: set[int]) -> int:
        """Append the tokens, retire finished lanes, and return how many are left."""
        active = 0
        for row, (owners, row_tokens) in enumerate(zip(self.owners, tokens, strict=True)):
            for lane, (owner, token) in enumerate(zip(owners, row_tokens, strict=True)):
                if owner >= 0:
                    self.token_ids[owner].append(token)
                    active += token not in stops
                    self.owners[row][lane] = -1 if token in stops else owner
        return active

    def _compact(self, token_rl: Tensor) -> Tensor:
        """Remove finished rows and lanes that all rows can spare, and return the others' tokens."""
        rows = [row for row, owners in enumerate(self.owners) if any(owner >= 0 for owner in owners)]
        lanes = max(sum(owner >= 0 for owner in self.owners[row]) for row in rows)
        order = [sorted(range(self.lanes), key=lambda lane: self.owners[row][lane] < 0)[:lanes] for row in rows]
        if len(rows) == len(self.owners) and lanes == self.lanes:
            return token_rl
        device = token_rl.device
        row_r, lane_rl = torch.tensor(rows, device=device), torch.tensor(order, device=device)
        self.owners = [
            [self.owners[row][lane] for lane in kept_lanes] for row, kept_lanes in zip(rows, order, strict=True)
        ]
        self.next_rl = self.next_rl[row_r[:, None], lane_rl]
        self.bias_rlk = self.bias_rlk[row_r[:, None], lane_rl]
        columns = self._columns() if lanes < self.lanes else None
        for layer in self.cache.layers:
            layer.take(row_r, columns)
        self.lanes = lanes
        self.steered.take(row_r, lane_rl)
        return token_rl[row_r[:, None], lane_rl]

    def _columns(self) -> Tensor:
        """Drop columns that no lane of a row attends to, and return those kept."""
        needed_rk = (self.bias_rlk[:, :, : self.width] == 0).any(1)
        column_rk = (~needed_rk).long().argsort(dim=-1, stable=True)[:, : int(needed_rk.sum(-1).max())]
        index = column_rk[:, None].expand(-1, self.bias_rlk.shape[1], -1)
        self.bias_rlk = self.bias_rlk.gather(2, index)
        self.width = column_rk.shape[1]
        return column_rk

    def _grow(self, room: int) -> None:
        self.bias_rlk = pad(self.bias_rlk, (0, room), value=self.blind)
        for layer in self.cache.layers:
            layer.grow(self.bias_rlk.shape[2] - layer.keys.shape[2])
