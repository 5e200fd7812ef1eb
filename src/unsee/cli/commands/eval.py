"""Evaluate a model on all questions of the data."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from unsee import config
from unsee.api import Benchmark, registry
from unsee.cli.commands._shared import OK, apply_retention, print_remark, run_of, run_options, say, say_json
from unsee.config import Run, paths
from unsee.config.hints import setting_hints
from unsee.config.paths import require_run
from unsee.config.plugins import naming_plugins
from unsee.config.retention import KEEP
from unsee.data.fingerprint import fingerprint
from unsee.data.open import open_benchmark
from unsee.distributed import processes
from unsee.errors import UserError
from unsee.models.builtin import PACKAGED
from unsee.models.location import folder_of
from unsee.scoring.scores import FIRST

SHOWN: Final = (
    *"leak degenerate hallucination refusal uninformative clean grounding name fact".split(),
    *"answer_prob truth_ratio forget_quality ks js utility fq gold_distance clip_score cut".split(),
    *"choice choice.no_pick choice.likelihood cloze rougeL both.choice both.cloze both.rougeL".split(),
)
"""Scores printed by `unsee eval --all`, beside extra ones of data or user."""


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    run_options(parser)
    parser.add_argument(
        "--stage", metavar="NAME", help="name of this model in reports (default: its method, or original)"
    )
    parser.add_argument("--likelihood", action="store_true", default=None, help="also ask how probable answers are")
    parser.add_argument(
        "--gold",
        metavar="RUN",
        help="a retrained model (judged first, in OUT-gold) or its judged run: adds distance to gold and forget quality",
    )
    parser.add_argument("--measures", metavar="NAMES", help="further measures: rouge1,rouge2,bleu,exact")
    parser.add_argument("--clip", metavar="FOLDER", help="CLIP model: adds CLIPScore of answers about images")
    parser.add_argument("--backend", metavar="NAME", help="hf (default) or vllm")
    parser.add_argument("--all", action="store_true", help="print every score behind the verdict")
    parser.add_argument("--json", action="store_true", help="print the scores as JSON")


def action(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    if unread := sorted({"method", "training", "continual"} & config.parse_overrides(options.set).keys()):
        raise UserError(
            f"--set {unread[0]}: unsee eval trains nothing. It takes eval.NAME=VALUE and benchmark.NAME=VALUE."
        )
    run = run_of(options)
    if not run.model:
        raise UserError("Which model is to be judged? Give --model, a folder, hub id, run folder or lab.")
    earlier = Run() if run.model in PACKAGED else _earlier(Path(run.model))
    with setting_hints(run):
        settings = config.build(config.EvalConfig, config.eval_of(run, earlier), where="eval")
    data, out = run.data or earlier.data, run.out or (run.model if earlier.method else "")
    if not (data and out) and run.model not in PACKAGED and paths.is_here(run.model) and not Path(run.model).exists():
        raise paths.no_run(Path(run.model))
    if not data or not out:
        raise UserError(f"Give --{'out' if data else 'data'}: {run.model} is no run folder that records it.")
    paths.require_own(folder_of(run.model), Path(out))  # before the data are read and torch is imported
    with naming_plugins(earlier):
        benchmark = open_benchmark(data, config.benchmark_of(run, earlier))
    if settings.gold:
        _require_gold(settings.gold)
    is_same_place = config.has_same_data(run, earlier)
    _tell_of_other_data(benchmark, data, Path(run.model if is_same_place else out), changed=is_same_place)
    from unsee.evaluation.evaluate import evaluate
    from unsee.models.builtin import STAGES, resolve

    scores = evaluate(
        resolve(run.model),
        benchmark,
        Path(out),
        settings,
        stage=options.stage or earlier.method or STAGES.get(run.model, "original"),
        seed=run.seed or earlier.seed,
        engine="plain" if "plain" in (run.engine, earlier.engine) else "fast",  # as the judged run was made
    )
    if options.json:
        say_json({name: score.to_json() for name, score in scores.items()})
    else:
        say("\n".join([_verdict(Path(out)), "", *_score_lines(scores, settings.measures, everything=options.all)]))
    _keep_leak(Path(out))
    _judge_retention(Path(out))
    return OK


def _tell_of_other_data(benchmark: Benchmark, data: str, folder: Path, *, changed: bool = False) -> None:
    """Print a remark if the results of a run will be those on other data than it was unlearned on.

    Args:
        benchmark: The data.
        data: Their place.
        folder: Folder of the run.
        changed: Whether they are at the place of those that it was unlearned on, and not given instead of them.
    """
    data_hash = config.data_hash_of(folder)
    if not data_hash or fingerprint(benchmark) == data_hash:
        return
    if changed:
        print_remark(config.changed_data(folder))
    else:
        print_remark(
            f"The scores in {folder} become those on {data}, which differ from the data it was unlearned on, and do not "
            "count in its verdict. Another --out keeps them apart."
        )


def _keep_leak(out: Path) -> None:
    """Keep in run.yaml that a run leaks, so that a smaller evaluation later does not clear it."""
    if processes.is_main() and config.result_of(out):
        from unsee.workflows.verdict import keep_evaluation, verdict_of

        outcome = verdict_of(out)
        if outcome is not None and outcome.leaks == "yes":
            keep_evaluation(out)


def _judge_retention(out: Path) -> None:
    """Apply the retention of a run to its verdict, unless it keeps everything."""
    if not (out / config.RECORD).is_file() or config.read(out / config.RECORD).retention == KEEP:
        return
    from unsee.workflows.verdict import verdict_of

    outcome = verdict_of(out)
    apply_retention(out, forgotten=outcome is not None and outcome.leaks == "no")


def _verdict(out: Path) -> str:
    """Return the verdict on the model in one sentence, as in the report."""
    from unsee.report.read import Stage, read_run
    from unsee.report.summary import judged_role
    from unsee.report.verdict import judge

    run = read_run(out)
    stage = Stage(name=run.stage, runs=(run,))
    verdict = judge(stage, None, judged_role([stage]))
    return "\n".join([f"{stage.label}: {verdict.sentence}.", *verdict.notes])


def _earlier(model: Path) -> Run:
    """Return the run that produced the model, or an empty one."""
    record = model / config.RECORD
    return config.read(record) if record.is_file() else Run()


def _require_gold(gold: str) -> None:
    """Raise before evaluation if the gold model is missing."""
    if paths.is_model(gold):
        folder_of(gold)
    else:
        require_run(gold)


def _score_lines(scores: dict[str, Any], asked: Sequence[str], *, everything: bool) -> list[str]:
    """Return the scores to print, those of the measures `asked` for among them, then missing ones with reasons."""
    from unsee.scoring.measures import EXTRA

    keys = {*asked, *((*SHOWN, *EXTRA, *registry.outside_names("metrics")) if everything else ())}
    chief = {
        name
        for name, score in scores.items()
        if not everything and (name in FIRST or (name.endswith(".cut") and score.value))
    }
    printed = {
        name: score
        for name, score in scores.items()
        if score.value is not None and (name in chief or name.partition(".")[2] in keys)
    }
    width = max(map(len, printed), default=0)
    lines = [f"{name:<{width}}  {score.value:6.3f}  n={score.n}" for name, score in printed.items()]
    return [*lines, *_missing_lines(scores), *([] if everything else ["(--all prints every score)"])]


def _missing_lines(scores: dict[str, Any]) -> list[str]:
    """Return missing scores with reasons, one line per role and reason."""
    keys_by_reason: dict[tuple[str, str], list[str]] = {}
    for name, score in scores.items():
        role, _, key = name.partition(".")
        if score.why and "@" not in key and "claim nothing" not in score.why:
            keys_by_reason.setdefault((role, score.why), []).append(key + ("" if score.value is None else " (in part)"))
    return [f"missing: {role} {', '.join(keys)}: {reason}" for (role, reason), keys in keys_by_reason.items()]
