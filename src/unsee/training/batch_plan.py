"""Deterministic batch schedule: contents depend on seed and batch index only.

Resuming is therefore exact.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle, islice

from unsee.api import Training
from unsee.api.request import Target
from unsee.utils.grouping import by_key
from unsee.utils.seeds import seed_of


@dataclass(frozen=True)
class Plan:
    """Batch schedule of a run: passes over the forget targets, retain targets cycled."""

    forget: Sequence[Target]
    retain: Sequence[Target]
    training: Training
    seed: int
    world: int = 1
    """World size; `training.batch_size` is per rank."""
    ratio: int = 1
    """Retain targets per forget target of a full batch."""

    @cached_property
    def size(self) -> int:
        """Forget targets in a global batch."""
        return self.training.batch_size * self.world

    @cached_property
    def per_epoch(self) -> int:
        """Batches per pass over the forget targets. The last may be smaller."""
        return math.ceil(len(self.forget) / self.size)

    @cached_property
    def steps(self) -> int:
        """Optimiser steps of the run: as `epochs` needs, at most `max_steps`."""
        needed_steps = math.ceil(self.per_epoch * self.training.epochs / self.training.accumulate)
        return needed_steps if self.training.max_steps < 0 else min(needed_steps, self.training.max_steps)

    @cached_property
    def steps_per_epoch(self) -> int:
        """Optimiser steps per epoch, rounded."""
        return max(1, math.ceil(self.per_epoch / self.training.accumulate))

    def __len__(self) -> int:
        return min(self.steps * self.training.accumulate, self.per_epoch * self.training.epochs)

    def epoch_at(self, step: int) -> float:
        """Return the epoch after this many optimiser steps."""
        return min(step * self.training.accumulate, len(self)) / self.per_epoch

    def batch(self, index: int) -> tuple[list[Target], list[Target]]:
        """Return forget and retain targets of the batch at `index`.

        A smaller last batch is filled from the start of the same pass up to a multiple of `world`, so that every process
        has as many rows as the others and the mean of their means is the mean of the batch.
        """
        size = self.size
        epoch, position = divmod(index, self.per_epoch)
        order = self._order("forget", epoch, len(self.forget))
        indices = order[position * size : (position + 1) * size]
        indices = [*indices, *islice(cycle(order), -len(indices) % self.world)]
        forget = [self.forget[i] for i in indices]
        if not self.retain:
            return forget, []
        slots = range(index * size * self.ratio, (index + 1) * size * self.ratio)
        return forget, [self._retain_at(slot) for slot in slots]

    def met(self) -> list[Target]:
        """Return the distinct retain targets that the whole run uses."""
        retain = (target for index in range(len(self)) for target in self.batch(index)[1])
        return list({target.key: target for target in retain}.values())

    def _retain_at(self, slot: int) -> Target:
        turn, position = divmod(slot, len(self.retain))
        return self.retain[self._order("retain", turn, len(self.retain))[position]]

    def _order(self, side: str, turn: int, length: int) -> list[int]:
        """Return the order of one pass. The latest is cached."""
        if self._orders.get(side, (-1, []))[0] != turn:
            order = list(range(length))
            random.Random(seed_of(self.seed, side, turn)).shuffle(order)
            targets = self.forget if side == "forget" else self.retain
            self._orders[side] = (turn, _by_image(order, targets) if self.training.by_image else order)
        return self._orders[side][1]

    @cached_property
    def _orders(self) -> dict[str, tuple[int, list[int]]]:
        return {}


def _by_image(order: Sequence[int], targets: Sequence[Target]) -> list[int]:
    """Reorder so that questions about one image are adjacent."""
    images = ((targets[index].example.image, index) for index in order)
    groups = by_key((image.key if image else index, index) for image, index in images)
    return [index for group in groups.values() for index in group]
