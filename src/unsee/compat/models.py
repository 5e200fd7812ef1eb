"""What lies inside models: the one below adapters, and private attributes of transformers."""

from __future__ import annotations

from typing import Any


def unwrapped(model: Any) -> Any:
    """Return the model inside PEFT's adapters, or the model itself without them."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def attention(text_config: Any) -> str | None:
    """Return the name of the model's attention implementation, or None if unknown."""
    implementation: str | None = getattr(text_config, "_attn_implementation", None)
    return implementation
