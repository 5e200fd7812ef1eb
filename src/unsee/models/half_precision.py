"""Saving of whole checkpoints in half precision."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from unsee.utils.files import follow_umask, foreign, owned_folder, remove_folder


def save_half(model: Any, processor: Any, folder: Path, texts: Mapping[str, str]) -> None:
    """Save model (fp16, safetensors) and processor. `config.json` comes last.

    Without it a folder is no model yet, so that an interrupted call leaves none that is incomplete.

    Args:
        model: Model, converted to fp16 in place.
        processor: Its processor.
        folder: Folder of the checkpoint.
        texts: File name -> text of further files.
    """
    temporary = owned_folder(folder / "model.part", anew=True)
    model.to(torch.float16).save_pretrained(temporary)
    processor.save_pretrained(temporary)
    for name, text in texts.items():
        (temporary / name).write_text(text, encoding="utf-8")
    follow_umask(*temporary.iterdir())
    for file in sorted(foreign(temporary), key=lambda file: file.name == "config.json"):
        file.replace(folder / file.name)
    remove_folder(temporary)
