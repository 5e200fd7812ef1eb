"""Idefics 2, Idefics 3 and SmolVLM: image tiles that are named in the text."""

from __future__ import annotations

from typing import ClassVar

from unsee.models.auto import AutoFamily


class Idefics(AutoFamily):
    """Idefics, whose answers end with `<end_of_utterance>` by the chat template."""

    model_types: ClassVar[tuple[str, ...]] = ("idefics2", "idefics3", "smolvlm")
