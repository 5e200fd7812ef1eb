"""Unlearn the forget set of the data."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from unsee import config
from unsee.api import registry
from unsee.cli.commands._shared import (
    FAILED,
    OK,
    UNFORGOTTEN,
    apply_retention,
    print_remark,
    run_of,
    run_options,
    say,
    say_json,
)
from unsee.config import Run
from unsee.distributed import processes
from unsee.errors import UserError


class _Once(argparse.Action):
    """Action that stores a value, and refuses a second one that differs."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Store the value, or the constant of an option without one."""
        value, earlier = self.const or values, getattr(namespace, self.dest)
        if earlier not in (None, value):
            parser.error(f"{option_string} sets {self.dest} to {value}, and it is {earlier} already")
        setattr(namespace, self.dest, value)


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    run_options(parser)
    parser.add_argument(
        "--recipe",
        metavar="NAME",
        help="start from published settings, `unsee list recipes`; options: --set recipe.x=y",
    )
    parser.add_argument(
        "--method", metavar="NAME", help="unlearning method; `unsee list methods` (default: what `unsee suggest` says)"
    )
    parser.add_argument(
        "--variant",
        default="default",
        metavar="V",
        help="default: keep the others where the data have retain rows (docs/commands.md); paper: the published form",
    )
    parser.add_argument("--seed", type=int, metavar="S", help="start of every random stream (default: 0)")
    parser.add_argument("--tune", metavar="HOW", help="lora or full")
    parser.add_argument("--parts", metavar="A,B", help="parts to train: vision, projector, language")
    parser.add_argument(
        "--quantization",
        action=_Once,
        metavar="KIND",
        help="hold the frozen base in few bits: nf4 (bitsandbytes) or int8 (torchao)",
    )
    for flag, kind in (("--load-in-4bit", "nf4"), ("--load-in-8bit", "int8")):
        parser.add_argument(
            flag, dest="quantization", action=_Once, nargs=0, const=kind, help=f"same as --quantization {kind}"
        )
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, estimate memory, disk, steps and time; write nothing"
    )
    parser.add_argument("--device", metavar="DEVICE", help="with --dry-run: estimate for cpu or cuda")
    parser.add_argument("--no-probe", action="store_true", help="with --dry-run: load no weights, measure no time")
    parser.add_argument("--json", action="store_true", help="with --dry-run: print the estimate as JSON")
    parser.add_argument(
        "--ask",
        type=int,
        metavar="N",
        help="questions per role and kind asked at the end, for the verdict (default: 8; 0: none)",
    )
    parser.add_argument(
        "--retention",
        metavar="HOW",
        help="keep (default), until_verified (remove caches once judged forgotten), or days:N (see unsee purge --due)",
    )
    parser.add_argument(
        "--budget",
        type=float,
        metavar="MINUTES",
        help="first try a few settings (without --method: of two methods) for at most so long, and take the best",
    )
    parser.add_argument("--resume", action="store_true", help="go on with the interrupted run in --out")


def action(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    run, remark = _chosen(run_of(options), options)
    if options.dry_run and options.ask is not None:
        raise UserError("--ask is about the verdict after a run, and --dry-run makes none. Leave one of them out.")
    if options.budget is not None and (options.dry_run or options.recipe):
        flag = "--dry-run, which makes no run" if options.dry_run else "--recipe, whose settings are those of a paper"
        raise UserError(f"--budget tries settings. Leave it out, or {flag}.")
    if options.dry_run:
        return _dry_run(run, options)
    if options.ask is not None and options.ask < 0:
        raise UserError(f"--ask must be 0 or more, got {options.ask}.")
    if options.device or options.json or options.no_probe:
        flag = "--device" if options.device else "--json" if options.json else "--no-probe"
        raise UserError(
            f"{flag} belongs to --dry-run. A run takes the GPU if there is one; CUDA_VISIBLE_DEVICES= hides it."
        )
    from unsee.workflows.forget import forget_run

    if options.budget is not None:
        from unsee.workflows.trials import best_within

        run = best_within(run, options.budget, resume=options.resume)
    folder = forget_run(run, resume=options.resume)
    say(folder)
    if remark:
        print_remark(remark)
    return _verdict(folder, options.ask)


def _chosen(run: Run, options: argparse.Namespace) -> tuple[Run, str]:
    """Return the run with a method and retain settings, and a sentence on what was added.

    A recipe or run file keeps its own.
    """
    from unsee.workflows.suggest import RETAINING, beside_retain_rows, require_variant
    from unsee.workflows.validate import require_locations

    require_variant(options.variant)
    if options.variant != "default" and (options.recipe or options.file):
        raise UserError(
            f"--variant {options.variant} leaves out what is added to --method, and nothing is added to a "
            f"{'recipe' if options.recipe else 'run file'}, which says its own settings. Leave it out."
        )
    if run.method:
        registry.require("methods", run.method)
    if options.recipe or options.file or not run.model or not run.data:
        return run, ""
    if not run.method and options.variant == "default":
        return (run if options.budget is not None else _suggested_run(run)), ""
    if run.method in RETAINING and options.variant == "default":
        require_locations(run)
        return beside_retain_rows(run)
    return run, ""


def _suggested_run(run: Run) -> Run:
    """Return the run to start with for its model and data, with the user's settings on top."""
    from unsee.workflows.suggest import suggest
    from unsee.workflows.validate import require_locations

    require_locations(run)
    suggestion = suggest(run.model, run.data, out=run.out, benchmark=run.benchmark)
    for reason in suggestion.reasons:
        print_remark(reason)
    settings, training = {**suggestion.run.settings, **run.settings}, {**suggestion.run.training, **run.training}
    return replace(run, method=suggestion.run.method, settings=settings, training=training)


def _verdict(folder: Path, questions: int | None) -> int:
    """Print whether the model still leaks, and return the exit code that says so."""
    if questions == 0 or processes.world() > 1:
        print_remark(f"Not judged yet: unsee eval --model {folder}")
        return OK
    from unsee.workflows.verdict import QUESTIONS, sample_verdict, verdict_of

    try:
        outcome = (verdict_of(folder) if questions is None else None) or sample_verdict(
            folder, questions=questions or QUESTIONS
        )
    except UserError as error:
        print_remark(f"The model is complete, but could not be judged: {error}")
        return OK
    print_remark(outcome)
    apply_retention(folder, forgotten=outcome.leaks == "no")
    return UNFORGOTTEN if outcome.leaks == "yes" else OK


def _dry_run(run: Run, options: argparse.Namespace) -> int:
    """Print the estimate, and fail if the run could not start or would not fit."""
    from unsee.workflows.estimate import estimate_run

    estimate = estimate_run(run, resume=options.resume, device=options.device or "auto", probe=not options.no_probe)
    say_json(config.plain(vars(estimate))) if options.json else say(estimate)
    return FAILED if estimate.problems else OK
