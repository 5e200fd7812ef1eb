"""Models on the meta device, to measure memory without loading weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Final

import torch
from torch.nn import Module
from transformers import AutoConfig, AutoModelForImageTextToText

_DEVICE: Final[ContextVar[str]] = ContextVar("device", default="")
"""Device for which models are built without weights; empty = load them."""


@contextmanager
def without_weights(device: str) -> Iterator[None]:
    """Make `unsee.models.auto.load` build models without weights for the block.

    Only configs are read; models are built as they would be on cpu or cuda.
    """
    token = _DEVICE.set(device)
    try:
        yield
    finally:
        _DEVICE.reset(token)


def meta_model(path: Path | str) -> Module | None:
    """Return the meta-device model of a folder or id inside `without_weights`, else None."""
    device = _DEVICE.get()
    if not device:
        return None
    config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    dtype = torch.float32 if device == "cpu" else config.dtype or torch.float32
    with torch.device("meta"):
        model: Module = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    return model.eval()
