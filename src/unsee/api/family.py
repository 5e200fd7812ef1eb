"""Interface of a model family: loading, prompting, encoding, parts."""

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
    """Architecture-specific loading, prompting and naming of parts.

    Abstract: one final subclass per file in models/families/.
    """

    model_types: ClassVar[tuple[str, ...]]
    """`config.model_type` values this family serves."""

    @abstractmethod
    def load(self, path: Path | str, *, dtype: str = "auto") -> tuple[Module, Any]:
        """Return the model (eval mode) and its processor."""

    @abstractmethod
    def prompt(self, processor: Any, question: str, *, has_image: bool, instruction: str = "") -> str:
        """Return the chat-template text up to the start of the answer.

        Args:
            processor: Processor of the model, whose chat template is used.
            question: Text of the user turn, without image placeholder.
            has_image: Whether an image stands before the question.
            instruction: Text that precedes the question; empty for none.
        """

    @abstractmethod
    def encode(self, processor: Any, prompts: Sequence[str], images: Sequence[Image | None]) -> Mapping[str, Tensor]:
        """Return left-padded model inputs for the prompts, images expanded.

        Every key is passed to `model(**inputs)` unchanged.
        """

    @abstractmethod
    def extend(self, row: Mapping[str, Tensor], token_ids: Sequence[int]) -> dict[str, Tensor]:
        """Append answer tokens to one encoded prompt, extending every per-token input."""

    @abstractmethod
    def parts(self, model: Module) -> Mapping[Part, str]:
        """Return part -> regular expression that matches its full module names."""
