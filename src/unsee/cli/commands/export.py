"""Export a run for another program."""

from __future__ import annotations

import argparse

from unsee.cli.commands._shared import OK, add_plugins, benchmark_options, benchmark_settings, plugin_option, say
from unsee.exporting import FORMATS


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("run", metavar="RUN", help="run folder; for lmms-eval and vlmevalkit also data")
    parser.add_argument("--to", required=True, metavar="FORMAT", help=", ".join(FORMATS))
    parser.add_argument("--out", required=True, metavar="DIR", help="new folder for the files")
    parser.add_argument(
        "--retain-logs-path", metavar="P", help="for open-unlearning: EVAL.json or run folder of the retrained model"
    )
    parser.add_argument(
        "--anyway", action="store_true", help="also a model that still leaks, or whose leak was never measured"
    )
    benchmark_options(parser, "for lmms-eval and vlmevalkit: ")
    plugin_option(parser)


def action(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    add_plugins(options)
    from unsee.exporting import export
    from unsee.workflows.requests.manage import note_child, require_ledger
    from unsee.workflows.verdict import require_silent

    has_model = options.to in ("merged", "peft")
    if has_model and not options.anyway:
        require_silent(options.run)
    if has_model:
        require_ledger(options.run)
    files = export(
        options.run,
        options.to,
        options.out,
        retain_logs_path=options.retain_logs_path,
        benchmark=benchmark_settings(options, "export"),
    )
    say("\n".join(map(str, files)))
    if has_model:
        note_child(options.run, options.to, options.out)
    task = next((file.stem for file in files if options.to == "lmms-eval" and file.name.endswith("_text.yaml")), "")
    if task:
        say(f"Questions without an image are the task {task}: run it only with a backend that takes text alone.")
    return OK
