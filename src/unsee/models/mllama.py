"""Llama 3.2 Vision (Mllama): the language model looks at the image by cross-attention."""

from __future__ import annotations

from typing import ClassVar

from unsee.autoclasses import AutoFamily


class Mllama(AutoFamily):
    """Rows without an image skip the cross-attention layers, so they are never in one batch with rows that have one (`padding.apart`)."""

    model_types: ClassVar[tuple[str, ...]] = ("mllama",)
