"""List available names, one line each, or everything about one of them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Final

from unsee.api import plugins, registry
from unsee.api.describe import describe
from unsee.api.method import GROUPS
from unsee.cli.commands._shared import OK, add_plugins, plugin_option, say
from unsee.errors import unknown_name
from unsee.utils.terminal import err

KINDS: Final[tuple[registry.Listed, ...]] = ("methods", "benchmarks", "metrics", "models", "attacks", "recipes")
"""Kinds that can be listed."""
_ALSO: Final = {"families": "models"}
"""Further words for a kind."""


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("kind", metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("name", metavar="NAME", nargs="?", help="one of them: settings, defaults, source, cost")
    plugin_option(parser)


def action(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    add_plugins(options)
    kind = _kind(_ALSO.get(options.kind, options.kind))
    if options.name:
        registry.require(kind, options.name)
        say("\n".join(describe(kind, options.name)))
        return OK
    names = registry.names(kind)
    if kind == "methods":
        _say_groups(names)
    else:
        _say_names(kind, names, max(map(len, names), default=0))
    if not names:
        err(f"There are no {kind} yet.")
    for group in plugins.unknown_groups():
        err(str(unknown_name("group of entry points in an installed package", group, plugins.GROUPS.values())))
    return OK


def _say_groups(names: Sequence[str]) -> None:
    """Print the methods by group."""
    group_by_name = {name: registry.group(name) for name in names}
    width = max(map(len, names), default=0)
    for group, meaning in GROUPS.items():
        say(f"{group}: {meaning}")
        _say_names("methods", [name for name in names if group_by_name[name] == group], width, "  ")


def _say_names(kind: registry.Listed, names: Sequence[str], width: int, indent: str = "") -> None:
    """Print each name with its line."""
    for name in names:
        origin = registry.origin(kind, name)
        say(f"{indent}{name:<{width}}  {registry.summary(kind, name)}{'' if origin == 'unsee' else f' [{origin}]'}")


def _kind(word: str) -> registry.Listed:
    matches = get_close_matches(word, KINDS, n=1, cutoff=0.8)
    if word not in KINDS and f"{word}s" not in KINDS:
        raise unknown_name("kind", word, KINDS)
    return next(kind for kind in KINDS if kind in (word, *matches))
