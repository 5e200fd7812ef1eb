"""LLaVA-OneVision: tiles with SigLIP and Qwen 2 (Li et al., 2024, arXiv 2408.03326)."""

from __future__ import annotations

from typing import ClassVar

from unsee.models.auto import AutoFamily


class LlavaOnevision(AutoFamily):
    """LLaVA-OneVision with one image per prompt, always tiled (`batch_num_images`)."""

    model_types: ClassVar[tuple[str, ...]] = ("llava_onevision",)
