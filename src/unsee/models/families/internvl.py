"""InternVL 3 and 3.5 in their Hugging Face form: tiles in one list, behind each other."""

from __future__ import annotations

from typing import ClassVar

from unsee.models.auto import AutoFamily


class InternVL(AutoFamily):
    """Vision tower and language model are of any kind; tiles of all images stand along one axis."""

    model_types: ClassVar[tuple[str, ...]] = ("internvl",)
