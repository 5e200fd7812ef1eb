"""Llama 3.2 Vision (Mllama): image input by cross-attention."""

from __future__ import annotations

from typing import ClassVar

from unsee.models.auto import AutoFamily


class Mllama(AutoFamily):
    """Llama 3.2 Vision.

    Rows without an image skip the cross-attention layers, so they never share a batch with rows that have one
    (`padding.batchable_groups`).

    Its template writes today's date into prompts without an image; here it is always the one it falls back to.
    """

    model_types: ClassVar[tuple[str, ...]] = ("mllama",)
    date: ClassVar[str] = "26 Jul 2024"
