"""LLaVA 1.5 and LLaVA-NeXT (1.6), with Vicuna, Mistral or Llama 3 (Liu et al., 2023 and 2024), and ViP-LLaVA."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from unsee.models.auto import AutoFamily

if TYPE_CHECKING:
    from torch.nn import Module


class Llava(AutoFamily):
    """Vision tower, two-layer projector, language model; older processors lack what expands the image token.

    LLaVA-NeXT sees a thumbnail and tiles of it; `image_sizes` says how they lie. Its `image_newline` belongs to no part.
    """

    model_types: ClassVar[tuple[str, ...]] = ("llava", "llava_next", "vipllava")

    def load(self, path: Path | str, *, dtype: str = "auto") -> tuple[Module, Any]:
        """Return model (eval mode) and processor, the latter told how many tokens an image takes."""
        model, processor = super().load(path, dtype=dtype)
        config: Any = model.config
        if processor.patch_size is None:
            processor.patch_size = config.vision_config.patch_size
            processor.num_additional_image_tokens = 1
        if processor.vision_feature_select_strategy is None:
            processor.vision_feature_select_strategy = config.vision_feature_select_strategy
        return model, processor
