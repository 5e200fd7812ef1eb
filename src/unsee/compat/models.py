"""Private facts about models of transformers."""

from __future__ import annotations

from typing import Any


def attention(text_config: Any) -> str | None:
    """Return the name of the attention implementation that a language model uses; None if transformers does not tell."""
    found: str | None = getattr(text_config, "_attn_implementation", None)
    return found
