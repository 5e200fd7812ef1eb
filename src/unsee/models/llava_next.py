"""LLaVA-NeXT (1.6): an image as a thumbnail and tiles of it (Liu et al., 2024)."""

from __future__ import annotations

from typing import ClassVar

from unsee.autoclasses import AutoFamily


class LlavaNext(AutoFamily):
    """Works as LLaVA does; `image_sizes` tells the model how the tiles lie. `image_newline` belongs to no part."""

    model_types: ClassVar[tuple[str, ...]] = ("llava_next",)
