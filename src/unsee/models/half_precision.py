"""Saving of whole checkpoints in half precision."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from unsee.utils.files import follow_umask, foreign, owned_folder, remove_folder


def save_half(model: Any, processor: Any, place: Path, texts: Mapping[str, str]) -> None:
    """Save model (fp16, safetensors) and processor. `config.json` comes last.

    Without it a folder is no model yet, so that an interrupted call leaves none that is incomplete.

    Args:
        model: Model, converted to fp16 in place.
        processor: Its processor.
        place: Folder of the checkpoint.
        texts: File name -> text of further files.
    """
    part = owned_folder(place / "model.part", anew=True)
    model.to(torch.float16).save_pretrained(part)
    processor.save_pretrained(part)
    for name, text in texts.items():
        (part / name).write_text(text, encoding="utf-8")
    follow_umask(*part.iterdir())
    for file in sorted(foreign(part), key=lambda file: file.name == "config.json"):
        file.replace(place / file.name)
    remove_folder(part)
