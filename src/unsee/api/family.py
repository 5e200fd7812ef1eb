"""What unsee has to know about an LVLM architecture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor
    from torch.nn import Module

    from unsee.api.training import Part


class Family(ABC):
    """How an architecture is loaded, prompted and taken apart. Abstract: one final subclass per file in models/."""

    model_types: ClassVar[tuple[str, ...]]
    """`config.model_type` values this family serves."""

    @abstractmethod
    def load(self, path: Path | str, *, dtype: str = "auto") -> tuple[Module, Any]:
        """Return model (eval mode) and processor."""

    @abstractmethod
    def prompt(self, processor: Any, question: str, *, has_image: bool, instruction: str = "") -> str:
        """Return the chat-template text up to where the answer begins; a non-empty instruction stands before the question in the same user turn."""

    @abstractmethod
    def encode(self, processor: Any, prompts: Sequence[str], images: Sequence[Image | None]) -> Mapping[str, Tensor]:
        """Return model inputs for the prompts, left-padded, images expanded; every key goes to `model(**inputs)` untouched."""

    @abstractmethod
    def extend(self, row: Mapping[str, Tensor], token_ids: Sequence[int]) -> dict[str, Tensor]:
        """Return one encoded prompt with the tokens of an answer behind it, every per-token input as long as `input_ids`."""

    @abstractmethod
    def parts(self, model: Module) -> Mapping[Part, str]:
        """Return part -> regular expression that matches the full names of the modules of that part."""
