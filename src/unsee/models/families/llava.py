"""LLaVA 1.5, LLaVA-NeXT (1.6) and ViP-LLaVA, with Vicuna, Mistral or Llama 3."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from unsee.models.auto import AutoFamily

if TYPE_CHECKING:
    from torch.nn import Module


class Llava(AutoFamily):
    """LLaVA: vision tower, two-layer projector, language model.

    Older processors lack the settings that expand the image token.

    LLaVA-NeXT encodes a thumbnail and tiles; `image_sizes` gives their layout. Its `image_newline` belongs to no part.
    """

    model_types: ClassVar[tuple[str, ...]] = ("llava", "llava_next", "vipllava")

    def load(self, path: Path | str, *, dtype: str = "auto") -> tuple[Module, Any]:
        """Return model (eval mode) and processor, with the number of image tokens set."""
        model, processor = super().load(path, dtype=dtype)
        config: Any = model.config
        if processor.patch_size is None:
            processor.patch_size = config.vision_config.patch_size
            processor.num_additional_image_tokens = 1
        if processor.vision_feature_select_strategy is None:
            strategy = getattr(config, "vision_feature_select_strategy", "default")  # ViP-LLaVA's config has none
            processor.vision_feature_select_strategy = strategy
        return model, processor
