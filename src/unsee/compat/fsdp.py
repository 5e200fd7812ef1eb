"""Layers that FSDP may not split, by an undocumented attribute of transformers models.

The plain way is `fsdp_transformer_layer_cls_to_wrap` in the launcher's config file.
"""

from __future__ import annotations

from typing import Any

from peft import PeftModel
from torch.nn import Module


def unsplittable(model: Module) -> set[str]:
    """Return the names of the module classes that transformers says must stay whole."""
    inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    return set(inner._no_split_modules or ())
