"""Batches of prompts and answers as tensors, with labels on answers only.

Shapes: b batch, t tokens, a answer positions (right-aligned, at the right end of the left-padded batch), v vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import Module

from unsee.api import VLM, Example, Family, Session
from unsee.api.fast_paths import FAST, PLAIN, Engine
from unsee.api.request import Target
from unsee.compat.models import unwrapped
from unsee.errors import UserError, short_repr
from unsee.inference.encoder import encoder
from unsee.inference.packing import Packed, pack
from unsee.losses import IGNORE
from unsee.models.auto import eos_id, pad_id
from unsee.models.padding import batchable_groups, merge

WORTH_SPLITTING = 256
"""Padded tokens that cost more than a second forward pass."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Targets as rows, padded to one batch on access.

    `inputs` is passed to `model(**inputs)` unchanged.
    """

    rows: tuple[Mapping[str, Tensor], ...]
    """Unpadded model inputs and labels of each target, batch axis 1, on the CPU."""
    targets: tuple[Target, ...]
    pad_id: int
    device: torch.device
    index: int = 0
    """Index of the batch in the run, the seed of draws that must survive a resume."""
    places: tuple[int, ...] = ()
    """Index of each row in the global batch, so that draws do not depend on the rank."""
    engine: Engine = FAST
    """Which fast paths the batch takes: those of the session or model that it is for."""

    @property
    def examples(self) -> tuple[Example, ...]:
        """The example of each row."""
        return tuple(target.example for target in self.targets)

    @property
    def images(self) -> tuple[str, ...]:
        """The content key of each row's image, "" for rows without one."""
        return tuple(example.image.key if example.image else "" for example in self.examples)

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        """All model inputs, left-padded."""
        rows = [{key: value for key, value in row.items() if key != "labels"} for row in self.rows]
        return self._to_device(merge(rows, self.pad_id))

    @cached_property
    def labels_bt(self) -> Tensor:
        """Labels at answer tokens (and EOS), -100 elsewhere."""
        rows = [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in self.rows]
        return self._to_device({"labels": merge(rows, self.pad_id)["labels"]})["labels"]

    @cached_property
    def parts(self) -> list[tuple[list[int], Batch]]:
        """Sub-batches of rows of similar length, each with its row indices."""
        lengths = [row["input_ids"].shape[1] for row in self.rows]
        return self._by(
            [
                [group[i] for i in subgroup]
                for group in batchable_groups(self.rows)
                for subgroup in group_by_length([lengths[i] for i in group])
            ]
        )

    @cached_property
    def kinds(self) -> list[tuple[list[int], Batch]]:
        """Sub-batches of rows that can share a batch. Nearly always one."""
        return self._by(batchable_groups(self.rows))

    def _by(self, groups: list[list[int]]) -> list[tuple[list[int], Batch]]:
        return [(rows, self.only(rows)) for rows in groups] if len(groups) > 1 else [(groups[0], self)]

    def fetched(self) -> Self:
        """Return the batch with tensors built and being sent to the device."""
        for _, part in self.parts:
            part.inputs, part.labels_bt  # noqa: B018 - cached when first asked for
        return self

    def packed(self, image_token: int) -> Packed:
        """Return the rows packed by image, on the device of the batch."""
        packed = pack(self.rows, self.images, image_token, self.pad_id)
        return packed.to(self.device)

    def only(self, indices: Sequence[int]) -> Batch:
        """Return the sub-batch of these rows."""
        return replace(
            self,
            rows=tuple(self.rows[i] for i in indices),
            targets=tuple(self.targets[i] for i in indices),
            places=tuple(self.places[i] for i in indices) if self.places else (),
        )

    def plain(self, indices: Sequence[int]) -> Batch:
        """Return the sub-batch of these rows, without fast paths: what trials of fast paths compare with."""
        return replace(self.only(indices), engine=PLAIN)

    def _to_device(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {key: value.to(self.device, non_blocking=True) for key, value in tensors.items()}


def group_by_length(lengths: Sequence[int]) -> list[list[int]]:
    """Group rows so that none is padded to over twice its length, unless that wastes little.

    Rows of one group keep their order; a second pass through the model pays from about `WORTH_SPLITTING` padded tokens on.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    groups: list[list[int]] = []
    start = 0
    for position, row in enumerate(order):
        longest = lengths[order[start]]
        wasted = sum(longest - lengths[later_row] for later_row in order[position:])
        if position > start and 2 * lengths[row] < longest and wasted >= WORTH_SPLITTING:
            groups.append(sorted(order[start:position]))
            start = position
    return [*groups, sorted(order[start:])]


def target_ids(processor: Any, family: Family, target: Target) -> tuple[int, ...]:
    """Return the supervised ids of a target: its answer and, if it ended, EOS."""
    ids = target.token_ids
    if ids is None:
        text = target.example.answer if target.text is None else target.text
        if not text.strip():
            raise UserError(f"Example {target.example.id!r} has an empty answer; give it one or leave the row out.")
        ids = encoder(processor, family).answer(text)
    supervised = (*ids, eos_id(processor)) if target.ended else tuple(ids)
    if not supervised:
        raise UserError(f"Example {target.example.id!r} has an answer without tokens; give it one or leave it out.")
    return supervised


def collate(
    session: Session | VLM, targets: Sequence[Target], index: int = 0, places: Sequence[int] | None = None
) -> Batch:
    """Return the left-padded batch of these targets, with labels on answers (and EOS) only.

    Targets without an instruction get that of the session: a model is trained as it is asked.

    Args:
        session: Session or model that the batch is for.
        targets: Prompts with their answers; one row each.
        index: Number of the batch in the run.
        places: Indices of the rows in the batch of all processes; 0, 1, ... if not given.

    Raises:
        UserError: A row is longer than the model's maximum sequence length.
    """
    encode = encoder(session.processor, session.family)
    instruction = session.instruction if isinstance(session, Session) else ""
    rows = []
    for target in targets:
        ids = target_ids(session.processor, session.family, target)
        prompt = replace(target.prompt, instruction=target.instruction or instruction)
        row = session.family.extend(encode.row(prompt), ids)
        require_room(session.model, row["input_ids"].shape[1], target.example.question)
        labels = torch.full_like(row["input_ids"], IGNORE)
        labels[0, -len(ids) :] = torch.tensor(ids)
        rows.append({**row, "labels": labels})
    return Batch(
        rows=tuple(rows),
        targets=tuple(targets),
        pad_id=pad_id(session.processor),
        device=device_of(session.model),
        index=index,
        places=tuple(range(len(targets)) if places is None else places),
        engine=session.engine,
    )


def room(model: Any) -> int | None:
    """Return the model's maximum sequence length, or None if it has none."""
    config = unwrapped(model).config.get_text_config()
    max_length, rotary = vars(config).get("max_position_embeddings"), vars(config).get("rope_parameters") or {}
    return int(max_length) if max_length and rotary.get("rope_type") != "dynamic" else None


def require_room(model: Any, tokens: int, question: str) -> None:
    """Raise if a row exceeds the maximum length.

    Rows are never truncated, because that would cut into the image.
    """
    max_length = room(model)
    if max_length and tokens > max_length:
        raise UserError(f"The question {short_repr(question)} {too_long(tokens, max_length)}")


def too_long(tokens: int, max_length: int) -> str:
    """Return the clause about a row that exceeds the maximum length."""
    return (
        f"takes {tokens} tokens with its image and answer, but the model reads at most {max_length}. "
        "Shorten it, let the processor make images smaller (its `size`), or leave it out."
    )


def device_of(model: Module) -> torch.device:
    """Return the device of the model's weights."""
    return next(model.parameters()).device
