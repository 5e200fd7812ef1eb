"""LVLM architectures, one file each, and how checkpoints are opened and saved."""

from unsee.checkpoint import Loaded, open_model, save_model

__all__ = ["Loaded", "open_model", "save_model"]
