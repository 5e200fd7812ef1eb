"""InternVL 3 and 3.5 in Hugging Face form: tiles of all images along one axis."""

from __future__ import annotations

from typing import ClassVar

from unsee.models.auto import AutoFamily


class InternVL(AutoFamily):
    """InternVL with any vision tower and language model."""

    model_types: ClassVar[tuple[str, ...]] = ("internvl",)
