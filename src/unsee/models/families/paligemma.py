"""PaliGemma and PaliGemma 2 (arXiv 2407.07726): no chat, bidirectional prompt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from unsee.models import auto
from unsee.models.auto import AutoFamily

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor
    from torch.nn import Module


class PaliGemma(AutoFamily):
    """PaliGemma, with prompts `<image>...<bos>question`, newline, answer.

    `token_type_ids` are 0 in the prompt and 1 in the answer.

    With 0 in the answer as well, answer tokens would see the ones to come. Without an image (which the model was never
    trained on) only the image tokens are left out.
    """

    model_types: ClassVar[tuple[str, ...]] = ("paligemma",)
    answer_values: ClassVar[Mapping[str, int]] = {"token_type_ids": 1}

    def load(self, path: Path | str, *, dtype: str = "auto") -> tuple[Module, Any]:
        """Return model (eval mode) and processor, which has no chat template."""
        return auto.load(path, dtype=dtype, template=False)

    def prompt(self, processor: Any, question: str, *, has_image: bool, instruction: str = "") -> str:
        """Return the processor's text: image placeholders, BOS, question, newline."""
        mark = processor.image_token if has_image else ""
        return f"{mark}{processor.tokenizer.bos_token}{instruction}{' ' if instruction else ''}{question}\n"

    def encode_one(self, processor: Any, text: str, image: Image | None) -> dict[str, Tensor]:
        """Return the inputs of one prompt.

        The processor adds BOS and newline itself, and accepts no text without an image.
        """
        if image is None:
            text_inputs = processor.tokenizer(
                text, return_tensors="pt", return_token_type_ids=True, add_special_tokens=False
            )
            return dict(text_inputs)
        prefix = f"{processor.image_token}{processor.tokenizer.bos_token}"
        row = super().encode_one(processor, processor.image_token + text.removeprefix(prefix).removesuffix("\n"), image)
        return {key: value for key, value in row.items() if key != "labels"}
