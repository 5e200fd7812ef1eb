"""Print the completion script for bash, zsh or fish."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

from unsee.api import Training, registry
from unsee.cli.commands._shared import OK, arguments_of, say
from unsee.config import EvalConfig, Run
from unsee.config.hints import paths
from unsee.errors import UserError, unknown_name

SHELLS: Final = ("bash", "zsh", "fish")
_NAMED: Final[Mapping[str, registry.Listed]] = {
    "method": "methods",
    "methods": "methods",
    "benchmark": "benchmarks",
    "recipe": "recipes",
    "attack": "attacks",
}
"""Argument -> kind of names that it takes."""
_LISTED: Final = {
    ("list", "kind"): ("list", "KINDS"),
    ("schema", "kind"): ("schema", "KINDS"),
    ("export", "to"): ("export", "FORMATS"),
    ("train", "world"): ("train", "WORLDS"),
    ("train", "strangers"): ("train", "STRANGERS"),
    ("completion", "shell"): ("completion", "SHELLS"),
}
"""Argument of a command -> the command and the constant that list its values."""
_RUNS: Final = {"bash": "_unsee_runs", "zsh": "_unsee_runs", "fish": "(__unsee_runs)"}
"""Function that lists run folders, and folders on the way to them."""
_FUNCTIONS: Final = {
    "bash": """\
_unsee_runs() {
  local file found=
  for file in "$1"*/run.yaml "$1"*/*/run.yaml; do
    [ -e "$file" ] && found=1 && echo "${file%/run.yaml}"
  done
  [ -n "$found" ] || compgen -d -- "$1"
}
""",
    "zsh": """\
_unsee_runs() {
  local -a runs=(*/run.yaml(N:h) */*/run.yaml(N:h))
  compadd -f -a runs
  _files -/
}
""",
    "fish": """\
function __unsee_runs
  set -l word (commandline -ct)
  for file in $word*/run.yaml $word*/*/run.yaml
    string replace -r '/run.yaml$' '' -- $file
  end
  __fish_complete_directories $word
end
""",
}
_PLACES: Final[Mapping[str, Any]] = {
    **dict.fromkeys(("RUN", "M"), _RUNS),
    **dict.fromkeys(("DIR", "D", "DATA", "FILE", "FOLDER", "P", "CODE", "RUN.yaml", "GRID.yaml"), "files"),
}
"""Metavar -> what stands for the place."""


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("shell", metavar="SHELL", help=", ".join(SHELLS))


def action(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    if options.shell not in SHELLS:
        raise unknown_name("shell", options.shell, SHELLS)
    try:
        import shtab
    except ImportError as error:
        raise UserError('Completion needs shtab: pip install "unsee[completion]".') from error
    for verb, parser in options.commands.items():
        for argument in arguments_of(parser):
            _explain(verb, argument, shtab)
    say(shtab.complete(options.parser, options.shell, preamble=_FUNCTIONS).rstrip())
    return OK


def _explain(verb: str, argument: Any, shtab: Any) -> None:
    """Tell shtab what an argument takes: words of a list, or a place."""
    if words := _words(verb, argument.dest):
        argument.choices = words
    elif completer := _PLACES.get(argument.metavar):
        argument.complete = shtab.FILE if completer == "files" else completer


def _words(verb: str, name: str) -> Sequence[str]:
    """Return the words that an argument takes, or none where they are too many to list."""
    if name in _NAMED:
        return registry.names(_NAMED[name])
    if source := _LISTED.get((verb, name)):
        command, constant = source
        values: Sequence[str] = getattr(importlib.import_module(f"unsee.cli.commands.{command}"), constant)
        return values
    if name == "set" and verb != "attack":
        return [f"{path}=" for path in paths()]
    return next((words for cls in (Run, Training, EvalConfig) if (words := _choices(cls, name))), ())


def _choices(cls: type[Any], name: str) -> Sequence[str]:
    """Return the values of a setting that has few."""
    hint = get_type_hints(cls).get(name)
    hint = get_args(hint)[0] if get_origin(hint) is tuple else hint
    return [str(value) for value in get_args(hint)] if get_origin(hint) is Literal else ()
