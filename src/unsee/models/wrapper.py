"""Base class of families that change the inputs which another family encodes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor
from torch.nn import Module

from unsee.api import Family, Part
from unsee.models.auto import pad_id
from unsee.models.padding import merge

if TYPE_CHECKING:
    from PIL.Image import Image


class Wrapper(Family):
    """Delegate to another family, except for the inputs of a prompt, which subclasses change."""

    model_types: ClassVar[tuple[str, ...]] = ()

    def __init__(self, inner: Family) -> None:
        """Wrap a family."""
        self.inner = inner

    @abstractmethod
    def changed(self, row: dict[str, Tensor], processor: Any, image: Image | None) -> dict[str, Tensor]:
        """Return the inputs of one prompt, given those that the wrapped family encodes."""

    def load(self, path: Path | str, *, dtype: str = "auto") -> tuple[Module, Any]:
        """Load as the wrapped family does."""
        return self.inner.load(path, dtype=dtype)

    def prompt(self, processor: Any, question: str, *, has_image: bool, instruction: str = "") -> str:
        """Write the prompt as the wrapped family does."""
        return self.inner.prompt(processor, question, has_image=has_image, instruction=instruction)

    def encode(self, processor: Any, prompts: Sequence[str], images: Sequence[Image | None]) -> dict[str, Tensor]:
        """Return the changed inputs, each prompt by itself, left-padded."""
        rows = [
            self.changed(dict(self.inner.encode(processor, [text], [image])), processor, image)
            for text, image in zip(prompts, images, strict=True)
        ]
        return merge(rows, pad_id(processor))

    def extend(self, row: Mapping[str, Tensor], token_ids: Sequence[int]) -> dict[str, Tensor]:
        """Append answer tokens as the wrapped family does."""
        return self.inner.extend(row, token_ids)

    def parts(self, model: Module) -> Mapping[Part, str]:
        """Name the parts as the wrapped family does."""
        return self.inner.parts(model)
