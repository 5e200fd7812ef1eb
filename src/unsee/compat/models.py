"""What lies inside models: the one below adapters, and private attributes of transformers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def unwrapped(model: Any) -> Any:
    """Return the model inside PEFT's adapters, or the model itself without them."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def config_facts(model: Any) -> dict[str, Any]:
    """Return the config of the model inside adapters, without the place it was loaded from. Empty if there is none."""
    inner = unwrapped(model)
    facts: dict[str, Any] = inner.config.to_dict() if hasattr(inner, "config") else {}
    return {name: value for name, value in facts.items() if not name.endswith("name_or_path")}


def adapter_layers(modules: Iterable[Any]) -> list[Any]:
    """Return the layers among the modules that PEFT has put adapters on."""
    return [module for module in modules if hasattr(module, "adapter_layer_names")]


def active_adapters(layers: Iterable[Any]) -> tuple[tuple[str, ...], ...]:
    """Return the names of the adapters that act in each of these layers."""
    return tuple(() if layer.disable_adapters else tuple(layer.active_adapters) for layer in layers)


def attention(text_config: Any) -> str | None:
    """Return the name of the model's attention implementation, or None if unknown."""
    implementation: str | None = getattr(text_config, "_attn_implementation", None)
    return implementation
