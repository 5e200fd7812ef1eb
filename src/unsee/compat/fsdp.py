"""Layers that FSDP must not split, by an undocumented attribute of transformers.

The plain way is `fsdp_transformer_layer_cls_to_wrap` in the launcher's config file.
"""

from __future__ import annotations

from typing import Any

from peft import PeftModel
from torch.nn import Module


def unsplittable(model: Module) -> set[str]:
    """Return the class names of modules that must stay on one rank."""
    inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    return set(inner._no_split_modules or ())
