"""Entry point of the command line.

Commands are in `commands/`, one file each, thin shells over Python functions. Nothing here loads torch.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Final, NoReturn

from unsee import __version__
from unsee.api import registry
from unsee.cli.commands._shared import FAILED, INTERRUPTED, OK, TERMINATED, USAGE, arguments_of
from unsee.config import paths as config_paths
from unsee.config.hints import equivalent_paths, paths
from unsee.distributed import processes
from unsee.errors import Terminated, UnseeError, UserError, short_repr, unknown_name
from unsee.utils.signals import raise_on_sigterm
from unsee.utils.terminal import err

_STORY: Final = tuple(
    "demo train suggest forget eval attack serve compare sweep leaderboard continual request receipt check list".split()
)
"""Order of commands in the help; others follow by name."""
_AGAIN: Final = {
    "forget": " The same command with --resume goes on from the last checkpoint.",
    "demo": " The same command goes on where this one stopped.",
    "sweep": " The same command goes on where this one stopped.",
    "leaderboard": " The same command goes on where this one stopped.",
    "continual": " The same command goes on where this one stopped.",
    "train": " The same command goes on where this one stopped.",
    "eval": " The same command goes on where this one stopped.",
    "attack": " The same command goes on with the attacks that are not finished.",
    "judge": " The same command goes on where this one stopped.",
    "request": " `unsee request run` goes on where it stopped; `unsee request verify` finds an `add` that did not end.",
}
"""Messages after Ctrl-C and SIGTERM."""
_SHOWS_ALL: Final = ("completion",)
"""Commands that read the options of all others."""


class _Parser(argparse.ArgumentParser):
    """ArgumentParser that raises UserErrors."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of exiting, so that errors are printed in one place."""
        raise UserError(f"{message[:1].upper()}{message[1:]}. See `{self.prog} --help`.")


def verbs() -> dict[str, ModuleType]:
    """Return every command by name, in the order of the help."""
    names = sorted(file.stem for file in (Path(__file__).parent / "commands").glob("*.py") if file.stem[0] != "_")
    ordered = [name for name in _STORY if name in names] + [name for name in names if name not in _STORY]
    return {name: importlib.import_module(f"unsee.cli.commands.{name}") for name in ordered}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    given_words = sys.argv[1:] if arguments is None else arguments
    words = [word for word in given_words if word != "--debug"]
    debug = "--debug" in given_words
    if not debug:
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft|accelerate)\b")
    try:
        return _dispatch(words)
    except UnseeError as error:
        if debug:
            raise
        if processes.is_main() or not isinstance(error, UserError):  # all processes make the user's mistake
            err(f"unsee: {error}")
        return USAGE if isinstance(error, UserError) else FAILED
    except KeyboardInterrupt as error:
        terminated = isinstance(error, Terminated)
        err(
            f"\nunsee: {'ended by SIGTERM' if terminated else 'interrupted'}.{_AGAIN.get(words[0] if words else '', '')}"
        )
        return TERMINATED if terminated else INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has seen enough; without this, closing stdout complains once more.
        sys.stderr.close()
        return OK
    except Exception as error:
        code = None if debug else _told(error)
        if code is None:
            raise
        return code


def _told(error: Exception) -> int | None:
    """Print a fault of a plugin or of the system, and return the exit code, or None for any other error."""
    if fault := registry.fault_of(error):
        err(f"unsee: {fault}")
        return USAGE
    if not isinstance(error, OSError) or error.strerror is None:
        return None
    place = "" if error.filename is None else f": {error.filename}"  # a full disk, for one, names no file
    err(f"unsee: {error.strerror}{place}. With --debug the traceback is shown.")
    return FAILED


def script() -> NoReturn:
    """Run the console script: `main`, then exit as distributed processes must."""
    raise_on_sigterm()
    processes.leave(main())


def _dispatch(words: list[str]) -> int:
    commands = verbs()
    command = words[0] if words and words[0] in commands and words[0] not in _SHOWS_ALL else None
    parser, subparsers = parsers(commands, command)
    if not words:
        parser.print_help()
        return USAGE
    if not words[0].startswith("-") and words[0] not in commands:
        raise unknown_name("command", words[0], commands)
    actions = _actions_of(subparsers[words[0]]) if words[0] in commands else {}
    if actions and words[1:] and not words[1].startswith("-") and words[1] not in actions:
        raise unknown_name(f"action of unsee {words[0]}", words[1], actions)
    if invalid := [word for word in words if "\0" in word]:
        raise UserError(f"The argument {short_repr(invalid[0])} holds the control character U+0000; remove it.")
    if words[0] in commands:
        _require_options(words[1:], actions.get("".join(words[1:2]), subparsers[words[0]]))
    options, unparsed = parser.parse_known_args(words)
    if unparsed:
        raise _unknown_option(unparsed, subparsers[options.verb])
    if out := vars(options).get("out"):
        config_paths.require_writable(out)
    options.parser, options.commands = parser, subparsers
    code: int = commands[options.verb].action(options)
    return code


def parsers(
    verb_modules: dict[str, ModuleType], only: str | None = None
) -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """Return the parser of `unsee` and those of its commands.

    A command's help is its file's docstring. If `only` names one, only its parser gets its options: making all of them takes
    longer than what many commands do.
    """
    parser = _Parser(
        prog="unsee",
        description="Make a vision-language model forget, and prove what it says afterwards.",
        epilog="Every command has its own help: unsee forget --help. With --debug an error shows its traceback.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"unsee {__version__}")
    commands = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True)
    subparsers: dict[str, argparse.ArgumentParser] = {}
    for name, module in verb_modules.items():
        text = (module.__doc__ or "").partition("\n")[0]
        subparsers[name] = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        if only in (None, name):
            module.options(subparsers[name])
    return parser, subparsers


def _actions_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of a command's actions by name, none of a command without actions."""
    return {
        name: subparser
        for argument in arguments_of(parser)
        if isinstance(argument.choices, dict)
        for name, subparser in argument.choices.items()
    }


def _require_options(words: Sequence[str], parser: argparse.ArgumentParser) -> None:
    """Raise for an unknown option, before argparse reports what is then missing."""
    flags = {flag for argument in arguments_of(parser) for flag in argument.option_strings}
    option_words = words[: words.index("--")] if "--" in words else words
    unknown = [
        word
        for word in option_words
        if word.startswith("--") and " " not in word and word.partition("=")[0] not in flags
    ]
    if unknown:
        raise _unknown_option(unknown, parser)


def _unknown_option(words: Sequence[str], parser: argparse.ArgumentParser) -> UserError:
    word = next((word for word in words if word.startswith("-")), words[0])
    if not word.startswith("-"):
        return UserError(f"Unexpected argument {word!r}. See `{parser.prog} --help`.")
    subparsers = [parser, *_actions_of(parser).values()]
    option_names = sorted(
        {
            flag
            for subparser in subparsers
            for action in arguments_of(subparser)
            for flag in action.option_strings
            if flag[:2] == "--"
        }
    )
    option = word.partition("=")[0]
    error = unknown_name(f"option of {parser.prog}", option, option_names)
    settings = equivalent_paths(option.lstrip("-").replace("-", "_"), paths()) if "--set" in option_names else []
    return error.beside(f"--set {path}=..." for path in settings)
