"""Unlearn deletion requests one after the other, and evaluate all of them after each."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

from unsee.api import registry
from unsee.cli.commands._shared import OK, run_from, run_options, say, values_of
from unsee.config import Run
from unsee.distributed.file_lock import owner
from unsee.errors import UserError

FLAGS = ("requests", "tasks", "mode", "order")
"""Options that are fields of the course."""
_OF_SEQUENCE: Final = (*FLAGS, *"file model data benchmark fields roles set engine plugin method seed".split())
"""Arguments of a sequence that is to be run."""


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    run_options(parser)
    parser.add_argument("--method", metavar="NAME", help="unlearning method; `unsee list methods`")
    parser.add_argument("--requests", metavar="FILE", help="requests in order (YAML or JSON), see docs/continual.md")
    parser.add_argument("--tasks", type=int, metavar="N", help="cut the data into N requests instead")
    parser.add_argument("--mode", metavar="MODE", help="sequential (default), merge, experts or joint")
    parser.add_argument("--order", type=int, metavar="N", help="0 = as listed (default), n = the n-th drawn order")
    parser.add_argument("--seed", type=int, metavar="S", help="start of every random stream (default: 0)")
    parser.add_argument(
        "--compare",
        action="extend",
        nargs="+",
        metavar="DIR",
        help="only draw the page of these finished sequences; repeatable",
    )


def action(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    if options.compare:
        return _compare(options)
    run, course = _read(options)
    if run.method:
        registry.require("methods", run.method)
    from unsee.workflows.continual import continual_run

    say(continual_run(run, course) / "continual.html")
    return OK


def _compare(options: argparse.Namespace) -> int:
    if not options.out:
        raise UserError("Give --out, the folder for the page.")
    arguments = vars(options)
    if unread := [name for name in _OF_SEQUENCE if arguments[name] not in (None, [])]:
        raise UserError(
            f"--compare draws a page of finished sequences, and does not read {unread[0]}. Give --out alone."
        )
    from unsee.workflows.continual import compare_continual

    with owner(Path(options.out)):
        say(compare_continual([Path(folder) for folder in options.compare], Path(options.out)))
    return OK


def _read(options: argparse.Namespace) -> tuple[Run, dict[str, Any]]:
    """Return run and course of the file, overridden by --set and named options."""
    values, arguments = values_of(options), vars(options)
    course = values.pop("continual", {})
    if not isinstance(course, dict):
        raise UserError(f"`continual:` must be a mapping of settings, got {course!r}.")
    if {"tasks", "retain"} <= values.keys():  # a written continual.yaml, which says them beside its settings
        del values["tasks"], values["retain"]
        values.pop("data_hash", None)
    for name, other in (("requests", "tasks"), ("tasks", "requests")):
        if arguments[name]:
            course.pop(other, None)
    course |= {name: arguments[name] for name in FLAGS if arguments[name] is not None}
    from unsee.workflows.continual.settings import Course

    return run_from(values, options, {"continual": Course}), course
