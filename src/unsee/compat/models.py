"""Private attributes of transformers models."""

from __future__ import annotations

from typing import Any


def attention(text_config: Any) -> str | None:
    """Return the name of the model's attention implementation, or None if unknown."""
    implementation: str | None = getattr(text_config, "_attn_implementation", None)
    return implementation
