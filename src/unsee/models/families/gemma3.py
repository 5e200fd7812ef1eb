"""Gemma 3: image tokens see each other in both directions, answers end with `<end_of_turn>`."""

from __future__ import annotations

from typing import ClassVar

from unsee.models.auto import AutoFamily


class Gemma3(AutoFamily):
    """`token_type_ids` tell which tokens are the image. The projector has no linear layer, so it is tuned in full or not at all."""

    model_types: ClassVar[tuple[str, ...]] = ("gemma3",)
