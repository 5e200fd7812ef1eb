"""Any model that transformers' `AutoModelForImageTextToText` opens and that has a chat template."""

from __future__ import annotations

from typing import ClassVar

from unsee.autoclasses import AutoFamily


class Generic(AutoFamily):
    """Serves what no other family claims; `checkpoint.open_model` looks whether it can before anything is trained."""

    model_types: ClassVar[tuple[str, ...]] = ()
