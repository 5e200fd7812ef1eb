"""Shared parts of commands: exit codes, options of a run, output on rank 0."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from unsee import config, recipes
from unsee.api import registry
from unsee.config import Run
from unsee.config.hints import setting_hints
from unsee.config.plugins import with_plugins
from unsee.config.retention import UNTIL_VERIFIED
from unsee.distributed import processes
from unsee.errors import UserError, short_repr
from unsee.models.builtin import PACKAGED
from unsee.utils import terminal

OK, FAILED, USAGE, UNFORGOTTEN, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 130, 143
"""Exit codes: done; could not be done, or data not usable; the user's mistake; done, but the model still leaks; Ctrl-C; SIGTERM."""


def run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for model, data, output and settings of a run."""
    parser.add_argument("file", nargs="?", metavar="RUN.yaml", help="run file; options below win over it")
    parser.add_argument("--model", metavar="M", help=f"folder, hub id, run folder, or one of {', '.join(PACKAGED)}")
    parser.add_argument("--data", metavar="D", help="folder, table or hub id of the data, or lab")
    parser.add_argument("--benchmark", metavar="NAME", help="layout of the data; default: recognise it")
    data_options(parser)
    parser.add_argument("--out", metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="one setting, e.g. method.beta=0.2; repeatable"
    )
    engine_option(parser)
    plugin_option(parser)


def data_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how a table of one's own is read."""
    parser.add_argument(
        "--fields", metavar="OURS=YOURS,...", help="columns of the table, e.g. image=image_path,answer=response"
    )
    parser.add_argument("--roles", metavar="FILE", help="who is to be forgotten: a file in place of the column role")


def benchmark_options(parser: argparse.ArgumentParser, scope: str = "") -> None:
    """Add the options that say how data are read. `scope`: when they count, as the beginning of their help."""
    parser.add_argument(
        "--benchmark", default="", metavar="NAME", help=f"{scope}layout of the data; default: recognise it"
    )
    data_options(parser)
    parser.add_argument(
        "--set", action="append", default=[], metavar="benchmark.X=Y", help="a setting of the benchmark; repeatable"
    )


def benchmark_settings(options: argparse.Namespace, command: str) -> str | dict[str, Any]:
    """Return what `benchmark_options` gives, or raise if `--set` gives more than settings of the benchmark."""
    settings = config.merge(config.parse_overrides(options.set), {"benchmark": benchmark_of(vars(options))})
    if settings.keys() != {"benchmark"}:
        raise UserError(f"unsee {command} sets only the benchmark: --set benchmark.NAME=VALUE.")
    benchmark: str | dict[str, Any] = settings["benchmark"]
    return benchmark


def benchmark_of(arguments: dict[str, Any]) -> str | dict[str, Any]:
    """Return `--benchmark`, with `--fields` and `--roles` as its settings."""
    name: str = arguments.get("benchmark") or ""
    settings: dict[str, Any] = {}
    if arguments.get("fields"):
        pairs = [pair.partition("=") for pair in arguments["fields"].split(",")]
        if unmapped := [name for name, _, column in pairs if not column.strip()]:
            raise UserError(f"--fields must be OURS=YOURS,..., e.g. image=image_path; {unmapped[0]!r} names no column.")
        ours_named = [ours.strip() for ours, _, _ in pairs]
        if twice := [ours for ours in ours_named if ours_named.count(ours) > 1]:
            raise UserError(f"--fields says twice what {twice[0]!r} is; give it once.")
        settings["fields"] = {ours.strip(): theirs.strip() for ours, _, theirs in pairs}
    if arguments.get("roles"):
        settings["roles"] = str(Path(arguments["roles"]).resolve())
    return {**({"name": name} if name else {}), **settings} if settings else name


def cells_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of commands that run many cells in one folder."""
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for everything; goes on with what is in it")
    parser.add_argument("--launcher", default="local", help="local (default) or slurm")
    plugin_option(parser)
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="cells that run at once (default: 1)")


def plugin_option(parser: argparse.ArgumentParser) -> None:
    """Add `--plugin`."""
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="CODE",
        help="Python file, folder or pkg.mod:Class with a method, benchmark, metric, family or attack of yours; repeatable",
    )


def engine_option(parser: argparse.ArgumentParser) -> None:
    """Add `--engine`."""
    parser.add_argument("--engine", metavar="HOW", help="fast (default), or plain: equal numbers without any fast path")


def add_plugins(options: argparse.Namespace) -> None:
    """Load what `--plugin` names."""
    for spec in options.plugin:
        registry.add(spec)


def run_of(options: argparse.Namespace) -> Run:
    """Return the run of recipe, file, --set and named options, with its plugins loaded."""
    return run_from(values_of(options), options)


def values_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return the values of recipe, file, --set and named options, the later ones on top."""
    arguments = {**vars(options)}
    values, overrides = recipe_of(arguments, config.parse_overrides(options.set))
    values = config.merge(values, _read_run_file(Path(options.file)) if options.file else {})
    # before --set, whose settings are meant for this method and not for the file's
    if arguments.get("method") is not None:
        values = config.merge(values, {"method": arguments["method"]})
    values = config.merge(values, overrides)
    flags = {
        name: arguments[name]
        for name in ("model", "data", "out", "method", "seed", "engine", "retention")
        if arguments.get(name) is not None
    }
    for section, names in (
        ("training", ("tune", "parts", "quantization")),
        ("eval", ("likelihood", "backend", "measures", "gold", "clip")),
    ):
        settings = {name: arguments[name] for name in names if arguments.get(name) is not None}
        if settings:
            flags[section] = settings
    if benchmark := benchmark_of(arguments):
        flags["benchmark"] = benchmark
    _require_agreement(flags, overrides)
    return config.merge(values, flags)


def run_from(values: Mapping[str, Any], options: argparse.Namespace, more: Mapping[str, Any] | None = None) -> Run:
    """Return the run with these values, with its plugins loaded.

    `more`: part of a run file -> further settings, which hints about misspelt ones know.
    """
    with setting_hints(values, more):
        run = Run.from_mapping(values, where=options.file or "the run")
    return with_plugins(replace(run, plugins=(*run.plugins, *options.plugin)))


def _require_agreement(flags: dict[str, Any], overrides: dict[str, Any]) -> None:
    """Raise if an option and `--set` give a setting of training or evaluation different values."""
    for section in ("training", "eval"):
        set_values = overrides.get(section)
        for name, value in flags.get(section, {}).items():
            if isinstance(set_values, dict) and name in set_values and _as_text(set_values[name]) != _as_text(value):
                raise UserError(
                    f"--{name} is {_as_text(value)} and --set {section}.{name} is {_as_text(set_values[name])}. Give one of them."
                )


def _as_text(value: Any) -> str:
    """Return a value as `--set` takes it."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _read_run_file(file: Path) -> dict[str, Any]:
    """Return the content of a run file. One written by a run refers to its own folder."""
    values = config.read_mapping(file)
    return {**values, "out": str(file.parent)} if file.name == config.RECORD and "record" in values else values


def recipe_of(arguments: dict[str, Any], overrides: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the run of `--recipe` (if any), and the --set settings that are not its options.

    `--method` and `--seed` are options of the recipe where it has them: its settings depend on the method.
    """
    options, other_overrides = overrides.pop("recipe", {}), overrides
    name = arguments.get("recipe")
    if name is None:
        if options:
            raise UserError("--set recipe.NAME=VALUE needs --recipe; `unsee list recipes` prints their names.")
        return {}, other_overrides
    if not isinstance(options, Mapping):
        raise UserError(
            f"--set recipe: expected options by name, such as recipe.NAME=VALUE, got {short_repr(options)}."
        )
    option_types = recipes.options_of(name)
    flags: dict[str, Any] = {
        key: arguments.pop(key) for key in ("method", "seed") if key in option_types and arguments.get(key) is not None
    }
    model, data, out = (arguments.get(key) or "" for key in recipes.PLACES)
    run_values = recipes.recipe(name, model=model, data=data, out=out, options={**options, **flags}).to_mapping()
    return {key: value for key, value in run_values.items() if value not in ("", {})}, other_overrides


def apply_retention(folder: Path, *, forgotten: bool) -> None:
    """Remove caches and checkpoints of a run that was judged forgotten, if its run file says so."""
    from unsee.workflows.purge import purge_verified

    if purged := purge_verified(folder, forgotten=forgotten):
        print_remark(f"retention {UNTIL_VERIFIED}: {len(purged.removed)} files of caches and checkpoints removed.")


def tell_unfinished(states: Mapping[str, str]) -> None:
    """Print the state of each cell that is not done."""
    for name, state in states.items():
        if state != "done":
            terminal.err(f"{state}: {name}")


def arguments_of(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the arguments of a parser, which argparse keeps to itself."""
    return list(parser._actions)


def say(line: object) -> None:
    """Print a result on rank 0 only."""
    if processes.is_main():
        terminal.out(line)


def say_json(values: object) -> None:
    """Print a result as JSON on rank 0 only.

    It is printable ASCII: what `say` escapes for terminals would be no JSON.
    """
    say(json.dumps(values, indent=2).replace("\x7f", "\\u007f"))


def print_remark(line: object) -> None:
    """Print a remark beside the result, on rank 0 only."""
    if processes.is_main():
        terminal.err(line)
