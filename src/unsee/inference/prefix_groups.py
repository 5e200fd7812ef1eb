"""Groups of prompts about one image, with their common prefix.

An image is loaded and processed once for all its questions. The other prompts are tokenised as text, and the image tokens
are inserted at the placeholder. The result is compared with the processor's own output, for the first prompt of every group
and once for another one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from unsee.api import Family
from unsee.inference.encoder import encoder
from unsee.models.padding import is_sequence
from unsee.models.positions import KEYS, positions

if TYPE_CHECKING:
    from unsee.api.request import Prompt

KNOWN: Final = frozenset(
    {"input_ids", "attention_mask", "pixel_values", "pixel_attention_mask", "image_sizes", "batch_num_images", *KEYS}
)
"""Inputs of the text or of the whole image; rows with others (token types) are not shared."""

_SPLICED: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
"""Processor -> whether splicing reproduces the processor's output."""


@dataclass(frozen=True)
class Group:
    """Prompts about one image, or about none."""

    places: tuple[int, ...]
    """Indices of the prompts in the list."""
    image: str
    """Content key of the image, "" without one."""
    row: dict[str, Tensor]
    """Model inputs of the first prompt, with the pixels of the image."""
    ids: tuple[tuple[int, ...], ...]
    """Tokens of each prompt, image tokens expanded."""
    shared: int
    """Length of the common prefix; every prompt has at least one token after it."""

    def head(self) -> dict[str, Tensor]:
        """Return the model inputs of the common prefix, with the pixels."""
        return {k: v[:, : self.shared] if is_sequence(self.row, k) else v for k, v in self.row.items()}

    def positions(self, depths: Tensor) -> Tensor:
        """Return the position ids [p, n] of tokens at these offsets.

        Only text follows the prefix.
        """
        prefix_pt = positions(self.row)[:, : self.shared]
        next_position = int(prefix_pt.max()) + 1 if self.shared else 0
        later_pn = (depths - self.shared + next_position).expand(len(prefix_pt), -1)
        prefix_depths = depths.clamp(max=max(0, self.shared - 1))
        return torch.where(depths < self.shared, prefix_pt[:, prefix_depths], later_pn) if self.shared else later_pn

    def sharable(self, image_token: int) -> bool:
        """Tell whether the prefix covers the image, so that only text follows it."""
        return self.row.keys() <= KNOWN and not any(image_token in ids[self.shared :] for ids in self.ids)


def groups(processor: Any, family: Family, prompts: Sequence[Prompt], image_token: int) -> Iterator[Group]:
    """Yield the prompts by image and instruction, those without an image first.

    Each group is encoded when it is requested.

    Args:
        processor: Processor of the model.
        family: Its family, which renders and encodes prompts.
        prompts: Requests; a group refers to them by index.
        image_token: Id of the image placeholder.
    """
    keys_by_id: dict[int, str] = {}
    members: dict[tuple[str, str], list[int]] = {}
    for index, prompt in enumerate(prompts):
        image = prompt.image
        key = "" if image is None else keys_by_id.get(id(image)) or keys_by_id.setdefault(id(image), image.key)
        members.setdefault((key, prompt.instruction), []).append(index)
    for (key, _), indices in sorted(members.items(), key=lambda item: bool(item[0][0])):
        group_prompts = [prompts[i] for i in indices]
        row, ids = _encode_group(processor, family, group_prompts, image_token)
        yield Group(tuple(indices), key, row, tuple(ids), _common(ids))


def _encode_group(
    processor: Any, family: Family, prompts: Sequence[Prompt], image_token: int
) -> tuple[dict[str, Tensor], list[tuple[int, ...]]]:
    """Return the inputs of the first prompt and the tokens of all."""
    encode = encoder(processor, family)
    row = encode.row(prompts[0])
    first_ids = _ids(row)
    if len({(prompt.question, prompt.instruction) for prompt in prompts}) == 1:
        return row, [first_ids] * len(prompts)
    spliced = _splice_images(first_ids, [encode.tokens(encode.text(prompt)) for prompt in prompts], image_token)
    if spliced is not None and processor not in _SPLICED:
        _SPLICED[processor] = spliced[-1] == _ids(encode.row(prompts[-1]))
    if spliced is None or not _SPLICED[processor]:
        return row, [_ids(encode.row(prompt)) for prompt in prompts]
    return row, spliced


def _splice_images(
    first_ids: tuple[int, ...], texts: Sequence[tuple[int, ...]], image_token: int
) -> list[tuple[int, ...]] | None:
    """Copy the image tokens of the first prompt into all prompts, or None if not found."""
    if image_token not in texts[0]:
        return list(texts) if texts[0] == first_ids else None
    mark = texts[0].index(image_token)
    before, after = texts[0][:mark], texts[0][mark + 1 :]
    image_ids = first_ids[mark : len(first_ids) - len(after)]
    if before + image_ids + after != first_ids or any(ids.count(image_token) != 1 for ids in texts):
        return None
    marks = [ids.index(image_token) for ids in texts]
    return [ids[:position] + image_ids + ids[position + 1 :] for ids, position in zip(texts, marks, strict=True)]


def _ids(row: dict[str, Tensor]) -> tuple[int, ...]:
    return tuple(row["input_ids"][0].tolist())


def _common(ids: Sequence[tuple[int, ...]]) -> int:
    """Return the length of the common prefix, leaving at least one token of each."""
    shortest = min(len(prompt_ids) for prompt_ids in ids) - 1
    low, high = min(ids), max(ids)
    return next((position for position in range(shortest) if low[position] != high[position]), shortest)
