"""List available names, one line each."""

from __future__ import annotations

import argparse
from difflib import get_close_matches
from typing import Final

from unsee.api import registry
from unsee.cli.commands._shared import OK, say
from unsee.errors import unknown_name
from unsee.utils.terminal import err

KINDS: Final[tuple[registry.Listed, ...]] = ("methods", "benchmarks", "metrics", "models", "attacks", "recipes")
"""Kinds that can be listed."""


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("kind", metavar="KIND", help=", ".join(KINDS))


def action(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    near = get_close_matches(options.kind, KINDS, n=1, cutoff=0.8)
    if options.kind not in KINDS and f"{options.kind}s" not in KINDS:
        raise unknown_name("kind", options.kind, KINDS)
    kind: registry.Listed = next(kind for kind in KINDS if kind in (options.kind, *near))
    found = {name: registry.summary(kind, name) for name in registry.names(kind)}
    width = max(map(len, found), default=0)
    for name, line in found.items():
        say(f"{name:<{width}}  {line}")
    if not found:
        err(f"There are no {kind} yet.")
    return OK
