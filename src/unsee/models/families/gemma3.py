"""Gemma 3: bidirectional attention among image tokens, `<end_of_turn>` ends answers."""

from __future__ import annotations

from typing import ClassVar

from unsee.models.auto import AutoFamily


class Gemma3(AutoFamily):
    """Gemma 3.

    `token_type_ids` mark image tokens. The projector has no linear layer, so it is tuned in full or not at all.
    """

    model_types: ClassVar[tuple[str, ...]] = ("gemma3",)
