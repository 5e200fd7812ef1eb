"""Layers that FSDP must not split, by an undocumented attribute of transformers.

The plain way is `fsdp_transformer_layer_cls_to_wrap` in the launcher's config file.
"""

from __future__ import annotations

from torch.nn import Module

from unsee.compat.models import unwrapped


def unsplittable(model: Module) -> set[str]:
    """Return the class names of modules that must stay on one rank."""
    return set(unwrapped(model)._no_split_modules or ())
