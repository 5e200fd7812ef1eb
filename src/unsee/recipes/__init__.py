"""Runs with published settings, one file each.

A recipe returns a `Run` and starts nothing.

A recipe is the function that its file is named after. It takes model, data and out, and options with defaults; which of its
settings are published and which are ours is marked in its file: [paper], [code], [second-hand], [inferred].
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, get_type_hints

from unsee import config
from unsee.api import registry
from unsee.config import Run
from unsee.errors import unknown_name

PLACES: Final = ("model", "data", "out")
"""Arguments of every recipe that only the user knows."""


def recipe(
    name: str, *, model: str = "", data: str = "", out: str = "", options: Mapping[str, Any] | None = None
) -> Run:
    """Return the run of a recipe.

    Args:
        name: Name of the recipe (`unsee list recipes`).
        model: Folder or hub id of the original model.
        data: Folder of the data set.
        out: Run folder.
        options: Option -> value, as text or of its type; others have the recipe's defaults.

    Raises:
        UserError: No recipe has this name, or the recipe no such option.
    """
    make, hints = _function(name), options_of(name)
    values: dict[str, Any] = {"model": model, "data": data, "out": out}
    for key, value in (options or {}).items():
        if key not in hints:
            raise unknown_name(f"option of the recipe {name}", key, hints)
        values[key] = config.convert(value, hints[key], where=f"recipe {name}: {key}")
    return make(**values)


def options_of(name: str) -> dict[str, Any]:
    """Return the options of a recipe with their types."""
    return {key: hint for key, hint in get_type_hints(_function(name)).items() if key not in (*PLACES, "return")}


def defaults_of(name: str) -> dict[str, Any]:
    """Return the options of a recipe with their defaults."""
    parameters = inspect.signature(_function(name)).parameters
    return {key: parameters[key].default for key in options_of(name)}


def _function(name: str) -> Callable[..., Run]:
    registry.require("recipes", name)
    function: Callable[..., Run] = vars(importlib.import_module(f"unsee.recipes.{name}"))[name]
    return function
