"""Print the table of recipes as Markdown: every recipe with its options, and the run that it makes by default."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, get_args

from unsee import config, recipes
from unsee.api import registry

HEAD = "| recipe | options, default first | method and settings | training |\n|---|---|---|---|"


def table() -> str:
    """Return the table."""
    return "\n".join([HEAD, *(_row(name) for name in registry.names("recipes"))])


def _row(name: str) -> str:
    run = recipes.recipe(name, model="M", data="D", out="O")
    layout, chosen = config.name_and_settings(run.benchmark)
    about = [f"`{run.method}`", _listed(run.settings), f"on `{layout}`" if layout else "", _listed(chosen)]
    return f"| `{name}` | {_options(name)} | {' '.join(part for part in about if part)} | {_listed(run.training) or 'none'} |"


def _options(name: str) -> str:
    hints, defaults = recipes.options_of(name), recipes.defaults_of(name)
    return "; ".join(f"`{key}`: {_choices(hint, defaults[key])}" for key, hint in hints.items())


def _choices(hint: Any, default: Any) -> str:
    others = [str(value) for value in get_args(hint) if value != default]
    return ", ".join([str(default), *others])


def _listed(values: Mapping[str, Any]) -> str:
    plain = {key: " ".join(value) if isinstance(value, tuple | list) else value for key, value in values.items()}
    return ", ".join(f"{key} {value}" for key, value in plain.items())


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
