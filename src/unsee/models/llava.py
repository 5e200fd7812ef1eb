"""LLaVA 1.5 and LLaVA-NeXT (1.6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from unsee import autoclasses
from unsee.api import Family, Part

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor
    from torch.nn import Module


class Llava(Family):
    """Vision tower, two-layer projector, language model; older processors lack what expands the image token."""

    model_types: ClassVar[tuple[str, ...]] = ("llava", "llava_next")

    def load(self, path: Path | str, *, dtype: str = "auto") -> tuple[Module, Any]:
        """Return model (eval mode) and processor, the latter told how many tokens an image takes."""
        model, processor = autoclasses.load(path, dtype=dtype)
        config: Any = model.config
        if processor.patch_size is None:
            processor.patch_size = config.vision_config.patch_size
            processor.num_additional_image_tokens = 1
        if processor.vision_feature_select_strategy is None:
            processor.vision_feature_select_strategy = config.vision_feature_select_strategy
        return model, processor

    def prompt(self, processor: Any, question: str, *, has_image: bool, instruction: str = "") -> str:
        """Return the user turn in the checkpoint's own chat template."""
        return autoclasses.prompt(processor, question, has_image=has_image, instruction=instruction)

    def encode(self, processor: Any, prompts: Sequence[str], images: Sequence[Image | None]) -> Mapping[str, Tensor]:
        """Return left-padded inputs with every key of the processor (`image_sizes` in LLaVA-NeXT)."""
        return autoclasses.encode(processor, prompts, images)

    def parts(self, model: Module) -> Mapping[Part, str]:
        """Return vision tower, projector and language model (with the head)."""
        return autoclasses.parts(model)
