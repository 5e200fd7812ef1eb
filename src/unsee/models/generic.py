"""Any model that transformers' `AutoModelForImageTextToText` opens and that has a chat template."""

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


class Generic(Family):
    """Works from Auto classes, the chat template and the usual module names; serves what no other family claims."""

    model_types: ClassVar[tuple[str, ...]] = ()

    def load(self, path: Path | str, *, dtype: str = "auto") -> tuple[Module, Any]:
        """Return model (eval mode) and processor."""
        return autoclasses.load(path, dtype=dtype)

    def prompt(self, processor: Any, question: str, *, has_image: bool, instruction: str = "") -> str:
        """Return the user turn in the checkpoint's own chat template."""
        return autoclasses.prompt(processor, question, has_image=has_image, instruction=instruction)

    def encode(self, processor: Any, prompts: Sequence[str], images: Sequence[Image | None]) -> Mapping[str, Tensor]:
        """Return left-padded inputs with every key of the processor."""
        return autoclasses.encode(processor, prompts, images)

    def parts(self, model: Module) -> Mapping[Part, str]:
        """Return the parts as found from module names."""
        return autoclasses.parts(model)
