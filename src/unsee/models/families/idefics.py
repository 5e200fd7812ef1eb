"""Idefics 2, Idefics 3 and SmolVLM: images split into tiles that are named in the text."""

from __future__ import annotations

from typing import ClassVar

from unsee.models.auto import AutoFamily


class Idefics(AutoFamily):
    """An answer ends with `<end_of_utterance>`, as the chat template writes it."""

    model_types: ClassVar[tuple[str, ...]] = ("idefics2", "idefics3", "smolvlm")
