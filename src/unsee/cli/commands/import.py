# ruff: noqa: N999 - the file has the name of the command
"""Convert an open-unlearning experiment to a run file."""

from __future__ import annotations

import argparse
from pathlib import Path

from unsee.cli.commands._shared import OK, say
from unsee.config import dump_yaml
from unsee.config.paths import near
from unsee.errors import UserError
from unsee.utils.terminal import err


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "experiment", nargs="+", metavar="CONFIG", help="its .hydra/config.yaml, or overrides such as trainer=NPO"
    )
    parser.add_argument("--model", default="", metavar="M", help="model of the run")
    parser.add_argument("--data", default="", metavar="D", help="data of the run")
    parser.add_argument("--out", default="", metavar="DIR", help="folder of the run (default: runs/TASK_NAME)")


def action(options: argparse.Namespace) -> int:
    """Print the run file. What was not converted goes to stderr."""
    from unsee.exporting.open_unlearning_import import from_overrides, read_experiment

    locations = {"model": options.model, "data": options.data, "out": options.out}
    words = options.experiment
    if all("=" in word for word in words):
        imported = from_overrides(words, **locations)
    elif len(words) == 1 and Path(words[0]).is_file():
        imported = read_experiment(words[0], **locations)
    else:
        is_missing_file = len(words) == 1 and "=" not in words[0]
        description = f"there is no file {words[0]}.{near(words[0])}" if is_missing_file else f"got {' '.join(words)}."
        raise UserError(f"Expected one config file or overrides NAME=VALUE; {description}")
    say(dump_yaml(imported.run.to_mapping()).rstrip())
    for remark in imported.remarks:
        err(f"remark: {remark}")
    if imported.retain_logs_path:
        err(f"for unsee export --to open-unlearning: --retain-logs-path {imported.retain_logs_path}")
    return OK
