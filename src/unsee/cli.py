"""`unsee`: the command line. Every verb is a thin shell over a Python function; nothing here loads torch."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, NoReturn

from unsee import __version__, config, devices, engine, registry
from unsee.api import Role
from unsee.benchmarks import open_benchmark
from unsee.config import Run
from unsee.errors import UnseeError, UserError, unknown_name

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
"""Exit codes: done; could not be done, or data not usable; the user's mistake; Ctrl-C."""
KINDS: Final[tuple[registry.Listed, ...]] = ("methods", "benchmarks", "metrics", "models", "attacks")
STRANGERS: Final = ("describe", "unknown", "guess")
STAGES: Final = {"lab-gold": "gold"}
"""Names in reports of the packaged models that are no starting point."""
SHOWN: Final = ("leak", "degenerate", "hallucination", "refusal", "uninformative", "clean", "grounding", "name", "fact")
"""Scores that `unsee eval` prints."""


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser whose complaints are UserErrors."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of exiting, so that there is one place where errors are printed."""
        raise UserError(f"{message[:1].upper()}{message[1:]}. See `{self.prog} --help`.")


@dataclass(frozen=True, kw_only=True)
class _Verb:
    help: str
    options: Callable[[argparse.ArgumentParser], None]
    action: Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    if not debug:
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft|accelerate)\b")
    try:
        return _dispatch([word for word in words if word != "--debug"])
    except UnseeError as error:
        if debug:
            raise
        if devices.is_main() or not isinstance(error, UserError):  # all processes make the user's mistake
            print(f"unsee: {error}", file=sys.stderr)
        return USAGE if isinstance(error, UserError) else FAILED
    except KeyboardInterrupt:
        hints = {
            "forget": " The same command with --resume goes on from the last checkpoint.",
            "demo": " The same command goes on where this one stopped.",
            "sweep": " The same command goes on where this one stopped.",
        }
        print(f"\nunsee: interrupted.{hints.get(words[0] if words else '', '')}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has seen enough; without this, closing stdout complains once more.
        sys.stderr.close()
        return OK


def _dispatch(words: list[str]) -> int:
    parser, subparsers = _parsers()
    if not words:
        parser.print_help()
        return USAGE
    if not words[0].startswith("-") and words[0] not in VERBS:
        raise unknown_name("command", words[0], VERBS)
    options, rest = parser.parse_known_args(words)
    if rest:
        raise _unknown_option(rest, subparsers[options.verb])
    return VERBS[options.verb].action(options)


def _parsers() -> tuple[_Parser, dict[str, _Parser]]:
    parser = _Parser(
        prog="unsee",
        description="Make a vision-language model forget, and prove what it says afterwards.",
        epilog="Every command has its own help: unsee forget --help. With --debug an error shows its traceback.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"unsee {__version__}")
    commands = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True)
    made = {}
    for name, verb in VERBS.items():
        made[name] = commands.add_parser(name, help=verb.help, description=verb.help, allow_abbrev=False)
        verb.options(made[name])
    return parser, made


def _unknown_option(rest: Sequence[str], parser: argparse.ArgumentParser) -> UserError:
    word = next((word for word in rest if word.startswith("-")), rest[0])
    if not word.startswith("-"):
        return UserError(f"Unexpected argument {word!r}. See `{parser.prog} --help`.")
    known = [text for action in parser._actions for text in action.option_strings if text.startswith("--")]
    return unknown_name(f"option of {parser.prog}", word.partition("=")[0], known)


def _demo_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", default="runs/demo", metavar="DIR", help="folder for everything (default: runs/demo)")
    parser.add_argument("--full", action="store_true", help="all methods, and the rows prompt and BG-only")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="runs per method (default: 1)")
    parser.add_argument("--methods", metavar="A,B", help="only these methods")
    parser.add_argument("--fresh", action="store_true", help="make every row anew, even if --out has it")
    _engine_option(parser)


def _demo(options: argparse.Namespace) -> int:
    methods = options.methods.split(",") if options.methods else None
    from unsee.demo import demo

    report = demo(
        Path(options.out),
        full=options.full,
        seeds=options.seeds,
        methods=methods,
        fresh=options.fresh,
        engine=options.engine or "fast",
    )
    print(report)
    return OK


def _train_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("world", help="what to train: lab")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the model")
    parser.add_argument("--without", default="", metavar="ROLE", help="leave a role out: `forget` makes the gold model")
    parser.add_argument("--people", type=int, default=50, metavar="N", help="people in the world (default: 50)")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--strangers", default="describe", help=f"how strangers are answered: {', '.join(STRANGERS)}")
    parser.add_argument("--steps-scale", type=float, default=1.0, metavar="X", help="multiply the training steps")


def _train(options: argparse.Namespace) -> int:
    for kind, given, known in (
        ("world", options.world, ("lab",)),
        ("role to leave out", options.without, ("", "forget")),
        ("way to answer strangers", options.strangers, STRANGERS),
    ):
        if given not in known:
            raise unknown_name(kind, given, [name for name in known if name])
    from unsee.train import train

    train(
        options.world,
        Path(options.out),
        without=options.without,
        people=options.people,
        seed=options.seed,
        strangers=options.strangers,
        scale=options.steps_scale,
    )
    print(options.out)
    return OK


def _run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", metavar="RUN.yaml", help="run file; options below win over it")
    parser.add_argument("--model", metavar="M", help="folder, hub id, run folder, lab or lab-gold")
    parser.add_argument("--data", metavar="D", help="folder or table with the data, or lab")
    parser.add_argument("--benchmark", metavar="NAME", help="layout of the data; default: recognise it")
    parser.add_argument("--out", metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="one setting, e.g. method.beta=0.2; repeatable"
    )
    _engine_option(parser)


def _engine_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--engine", metavar="HOW", help="fast (default), or plain: equal numbers without any fast path")


def _forget_options(parser: argparse.ArgumentParser) -> None:
    _run_options(parser)
    parser.add_argument("--method", metavar="NAME", help="unlearning method; `unsee list methods`")
    parser.add_argument("--seed", type=int, metavar="S", help="start of every random stream (default: 0)")
    parser.add_argument("--tune", metavar="HOW", help="lora or full")
    parser.add_argument("--parts", metavar="A,B", help="parts to train: vision, projector, language")
    parser.add_argument("--resume", action="store_true", help="go on with the interrupted run in --out")


def _forget(options: argparse.Namespace) -> int:
    run = _run(options)
    if run.method:
        registry.require("methods", run.method)
    from unsee.run import forget_run

    folder = forget_run(run, resume=options.resume)
    _say(folder)
    return OK


def _say(line: object) -> None:
    """Print a result once, however many processes found it."""
    if devices.is_main():
        print(line)


def _run(options: argparse.Namespace) -> Run:
    """Return the run of the file, overridden by --set, overridden by the named options."""
    values = config.read_mapping(Path(options.file)) if options.file else {}
    values = config.merge(values, config.parse_overrides(options.set))
    given = vars(options)
    flags = {
        name: given[name]
        for name in ("model", "data", "benchmark", "out", "method", "seed", "engine")
        if given.get(name) is not None
    }
    for part, names in (("training", ("tune", "parts")), ("eval", ("likelihood", "backend"))):
        chosen = {name: given[name] for name in names if given.get(name) is not None}
        if chosen:
            flags[part] = chosen
    return Run.from_mapping(config.merge(values, flags), where=options.file or "the run")


def _eval_options(parser: argparse.ArgumentParser) -> None:
    _run_options(parser)
    parser.add_argument(
        "--stage", metavar="NAME", help="name of this model in reports (default: its method, or original)"
    )
    parser.add_argument("--likelihood", action="store_true", default=None, help="also ask how probable answers are")
    parser.add_argument("--backend", metavar="NAME", help="hf (default) or vllm")
    parser.add_argument("--json", action="store_true", help="print the scores as JSON")


def _eval(options: argparse.Namespace) -> int:
    run = _run(options)
    if not run.model:
        raise UserError("Which model is to be judged? Give --model, a folder, hub id, run folder or lab.")
    settings = config.build(config.Eval, run.eval, where="eval")
    earlier = _earlier(Path(run.model))
    data, out = run.data or earlier.data, run.out or (run.model if earlier.method else "")
    if not data or not out:
        raise UserError(f"Give --{'out' if data else 'data'}: {run.model} is no run folder that says it.")
    benchmark = open_benchmark(data, run.benchmark or ("" if run.data else earlier.benchmark))
    from unsee.evaluate import evaluate
    from unsee.run import resolve_model

    with engine.using(run.engine):
        scores = evaluate(
            resolve_model(run.model),
            benchmark,
            Path(out),
            stage=options.stage or earlier.method or STAGES.get(run.model, "original"),
            limit=settings.limit,
            max_new_tokens=settings.max_new_tokens,
            batch_size=settings.batch_size,
            seed=run.seed,
            roles=[_role(name) for name in settings.roles] or None,
            likelihood=settings.likelihood,
            backend=settings.backend,
        )
    if options.json:
        _say(json.dumps({name: score.to_json() for name, score in scores.items()}, ensure_ascii=False, indent=2))
    else:
        _say("\n".join(_score_lines(scores)))
    return OK


def _role(name: str) -> Role:
    if name not in set(Role):
        raise unknown_name("role", name, [role.value for role in Role])
    return Role(name)


def _earlier(model: Path) -> Run:
    """Return the run that made the model; an empty one for models that no run made."""
    record = model / "run.yaml"
    return config.read(record) if record.is_file() else Run()


def _score_lines(scores: dict[str, Any]) -> list[str]:
    shown = {
        name: score for name, score in scores.items() if name.partition(".")[2] in SHOWN and score.value is not None
    }
    width = max(map(len, shown), default=0)
    return [f"{name:<{width}}  {score.value:6.3f}  n={score.n}" for name, score in shown.items()]


def _sweep_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("grid", metavar="GRID.yaml", help="base run and axes, see docs/sweep.md")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for everything; goes on with what is in it")
    parser.add_argument("--launcher", default="local", help="local (default) or slurm")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="cells that run at once (default: 1)")


def _sweep(options: argparse.Namespace) -> int:
    from unsee.sweep import sweep

    states = sweep(options.grid, options.out, launcher=options.launcher, jobs=options.jobs)
    for name, state in states.items():
        if state != "done":
            print(f"{state}: {name}", file=sys.stderr)
    print(Path(options.out) / "compare" / "report.html" if "done" in states.values() else options.out)
    return FAILED if "failed" in states.values() else OK


def _compare_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders that were judged with unsee eval")
    parser.add_argument(
        "--out", default="runs/compare", metavar="DIR", help="folder for report.html (default: runs/compare)"
    )


def _beside_runs(folder: Path) -> bool:
    """Tell whether `runs/*` has brought a folder that is no run: what runs share, or an earlier comparison."""
    shared = folder.name in ("images", "cache") and not (folder / "run.yaml").exists()
    return (
        folder.is_dir() and not (folder / "scores.json").exists() and (shared or (folder / "leaderboard.json").exists())
    )


def _compare(options: argparse.Namespace) -> int:
    runs = [run for run in map(Path, options.runs) if not _beside_runs(run)]
    if not runs:
        raise UserError(f"None of {', '.join(options.runs)} is a run folder. Give the --out of `unsee eval`.")
    for run in runs:
        if not (run / "scores.json").is_file():
            raise UserError(
                f"{run} has no scores.json. Judge it first: unsee eval --model {run} --data ... --out {run}"
            )
    from unsee.report import compare

    print(compare(runs, Path(options.out)))
    return OK


def _check_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("place", nargs="?", metavar="DATA", help="folder or table, or lab")
    parser.add_argument("--data", metavar="D", help="the same")
    parser.add_argument("--benchmark", default="", metavar="NAME", help="layout of the data; default: recognise it")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def _check(options: argparse.Namespace) -> int:
    data = options.data or options.place
    if not data:
        raise UserError("Which data is to be checked? Give --data FOLDER.")
    from unsee.check import check

    report = check(data, benchmark=options.benchmark)
    print(json.dumps(config.plain(vars(report)), ensure_ascii=False, indent=2) if options.json else report)
    return OK if report.usable else FAILED


def _list_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", metavar="KIND", help=", ".join(KINDS))


def _list(options: argparse.Namespace) -> int:
    near = get_close_matches(options.kind, KINDS, n=1, cutoff=0.8)
    if options.kind not in KINDS and f"{options.kind}s" not in KINDS:
        raise unknown_name("kind", options.kind, KINDS)
    kind: registry.Listed = next(kind for kind in KINDS if kind in (options.kind, *near))
    found = {name: registry.summary(kind, name) for name in registry.names(kind)}
    width = max(map(len, found), default=0)
    for name, line in found.items():
        print(f"{name:<{width}}  {line}")
    if not found:
        print(f"There are no {kind} yet.", file=sys.stderr)
    return OK


VERBS: Final = {
    "demo": _Verb(help="The whole story on the embedded lab, with a report.", options=_demo_options, action=_demo),
    "train": _Verb(help="Make the lab model from scratch.", options=_train_options, action=_train),
    "forget": _Verb(help="Unlearn the forget role of the data.", options=_forget_options, action=_forget),
    "eval": _Verb(help="Ask a model everything and judge its answers.", options=_eval_options, action=_eval),
    "sweep": _Verb(help="A grid of runs, each done once, and their comparison.", options=_sweep_options, action=_sweep),
    "compare": _Verb(help="Leaderboard and report of several runs.", options=_compare_options, action=_compare),
    "check": _Verb(help="Is this data usable? Says what is wrong, row by row.", options=_check_options, action=_check),
    "list": _Verb(help="Names that can be used, one line each.", options=_list_options, action=_list),
}
"""What can be typed after `unsee`."""
