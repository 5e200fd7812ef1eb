"""Verdict on a run, in words and as a status, from a small sample or its evaluation."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from unsee import config
from unsee.api import Benchmark, Role
from unsee.config import RECORD, Run
from unsee.data.open import open_benchmark
from unsee.distributed import processes
from unsee.distributed.file_lock import owner
from unsee.errors import UserError
from unsee.evaluation.evaluate import evaluate
from unsee.models import tracking
from unsee.models.builtin import resolve
from unsee.report.read import Stage, read_run
from unsee.report.summary import judged_role, told_share
from unsee.report.verdict import LIMITS, Verdict, judge, percent, told_elsewhere
from unsee.utils.parsing import read_object
from unsee.utils.terminal import note_once

QUESTIONS: Final = 8
"""Questions per role and kind in the sample."""
SAMPLED: Final = (Role.UNSEEN, Role.FORGET, Role.FORGET_TEXT, Role.RETAIN, Role.BENIGN)

_ALL: Final = {"limit": "null", "roles": "[]", "split": "all"}
"""Setting of an evaluation that leaves out questions -> what asks all, as `--set` takes it."""

Leaks = Literal["no", "yes", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Whether a model still says what it was to forget.

    That it does not is no proof that it has forgotten: only attacks tell.
    """

    leaks: Leaks
    """By the share of leaking answers; "unknown" if it could not be measured."""
    sentence: str
    questions: int
    """Answers that the sentence rests on."""
    advice: str = ""
    """What to do next."""
    sample: bool = False
    """Whether a sample of the questions was asked, and not an evaluation."""

    def __str__(self) -> str:
        headlines = {"no": "no longer leaks", "yes": "STILL LEAKS", "unknown": "not measured"}
        answers = f"{'sample of ' * self.sample}{self.questions} answers"
        headline = f"{headlines[self.leaks]} ({answers}): {self.sentence}."
        return "\n".join([headline, *([self.advice] if self.advice else [])])


def sample_verdict(folder: Path | str, *, questions: int = QUESTIONS, data: Benchmark | None = None) -> Outcome:
    """Evaluate a finished run and its original on sample questions, and return the outcome.

    `data` are the run's data where they were given as an object. Held-out images decide where the data have them. The outcome
    is kept in run.yaml, the answers are not. A sample of 8 questions per role and kind shows that a model leaks, but not that
    it never does: `unsee eval` asks all questions.

    Raises:
        UserError: The folder is no finished run, or its data or original are gone, or cannot be judged.
    """
    folder = Path(folder)
    config.require_ended(folder)
    run = config.read(folder / RECORD)
    data = data or open_benchmark(run.data, run.benchmark)
    with tempfile.TemporaryDirectory() as work_folder:
        original = _evaluate_stage(str(resolve(run.model)), data, run, Path(work_folder), "original", questions)
        stage = _evaluate_stage(str(folder), data, run, Path(work_folder), run.method, questions)
        outcome = _outcome(stage, original, run, steps=config.result_of(folder).get("steps"))
    keep_outcome(folder, outcome)
    return outcome


def _evaluate_stage(model: str, benchmark: Benchmark, run: Run, folder: Path, stage: str, questions: int) -> Stage:
    """Return the model's answers to the sample, judged."""
    present_roles = {example.role for example in benchmark.examples("eval")}
    evaluate(
        model,
        benchmark,
        folder / stage,
        config.EvalConfig(
            limit=questions,
            roles=tuple(role for role in SAMPLED if role in present_roles),
            max_new_tokens=config.build(config.EvalConfig, run.eval, where="eval").max_new_tokens,
        ),
        stage=stage,
        images_dir=folder / "images",
        engine=run.engine,
    )
    return _stage(folder / stage)


def _stage(folder: Path) -> Stage:
    record = read_run(folder)
    return Stage(name=record.stage, runs=(record,))


def verdict_of(folder: Path | str) -> Outcome | None:
    """Return the outcome of an evaluation, else of a sample, or None if never judged.

    An evaluation that could not tell, or was made on other data than the run's, replaces no earlier verdict. One that asked
    some of the questions only clears no model that was found to leak. One of a batch of deletion requests clears nobody: it
    asks nothing about the people of earlier batches.
    """
    folder = Path(folder)
    result = config.result_of(folder)
    verdict = result.get("verdict")
    stored_outcome = (
        config.build(Outcome, verdict, where=f"{folder}: verdict") if isinstance(verdict, Mapping) else None
    )
    if not ((folder / "scores.json").is_file() and (folder / "responses.jsonl").is_file()):
        return stored_outcome
    if config.other_data_judged(folder):
        note_once(
            f"{folder}: its evaluation is on other data than it was unlearned on, and does not count in its verdict."
        )
        return stored_outcome
    outcome = _outcome(_stage(folder), None, config.read(folder / RECORD), steps=result.get("steps"))
    if stored_outcome is None or _replaces(outcome.leaks, stored_outcome.leaks, is_batch="requests" in result):
        if stored_outcome is None or stored_outcome.leaks != "yes" or not _is_smaller(outcome, stored_outcome, folder):
            return outcome
        resets = [f" --set eval.{name}={_ALL[name]}" for name in config.read(folder / RECORD).eval if name in _ALL]
        note_once(
            f"{folder}: its evaluation asked some of the questions only, and does not take back that it leaks. To ask all: "
            f"unsee eval --model {folder}{''.join(resets)}"
        )
    return stored_outcome


def _replaces(evaluated: Leaks, stored: Leaks, *, is_batch: bool) -> bool:
    """Tell whether what an evaluation found replaces an earlier verdict, if it asked enough."""
    if is_batch:
        return evaluated == "yes" and stored != "yes"
    return evaluated != "unknown" or stored == "unknown"


def _is_smaller(outcome: Outcome, stored: Outcome, folder: Path) -> bool:
    """Tell whether an evaluation that found no leak asked too little to clear a model that was found to leak."""
    if outcome.leaks == "yes":
        return False
    file = folder / "judged.json"
    judged_facts = read_object(file) if file.is_file() else {}
    # what the run's own file leaves out is left out of every evaluation
    settings = {name: value for name, value in config.read(folder / RECORD).eval.items() if name in config.NARROWING}
    usual = config.build(config.EvalConfig, settings, where="eval").narrowed()
    is_narrowed = any(name in judged_facts and judged_facts[name] != usual.get(name) for name in config.NARROWING)
    # files of older versions say nothing of limit and roles, but the answers can be counted
    return is_narrowed or outcome.questions < stored.questions


def require_silent(folder: Path | str) -> None:
    """Raise unless a finished run was judged in full and found not to leak.

    Called before its model is handed on.

    Raises:
        UserError: With the verdict, and how to hand the model on all the same.
    """
    folder = _run_of(Path(folder))
    if not config.result_of(folder):
        return  # no finished run; whoever hands it on says what it lacks
    try:
        config.require_judged(folder)
    except UserError as error:
        raise UserError(f"{error} Or give --anyway to hand the model on all the same.") from error
    outcome = verdict_of(folder)
    if outcome is None:
        raise UserError(
            f"{folder} was never judged, so nobody knows what it still says. Run `unsee eval --model {folder}` "
            "first, or give --anyway."
        )
    if outcome.leaks != "no":
        finding = "still leaks" if outcome.leaks == "yes" else "is not known to be silent"
        raise UserError(f"{folder} {finding}: {outcome.sentence}. Give --anyway to hand it on all the same.")


def _run_of(folder: Path) -> Path:
    """Return the run of a folder: of its weights the one that they are in."""
    place = folder.resolve()
    is_model = place.name == "model" and not (place / RECORD).is_file() and (place.parent / RECORD).is_file()
    return place.parent if is_model else folder


def _outcome(stage: Stage, original: Stage | None, run: Run, *, steps: int | None) -> Outcome:
    """Return the outcome of judged answers.

    Args:
        stage: Model whose answers are judged.
        original: Its original, asked the same sample of questions. None: the answers are an evaluation's.
        run: Run that made the model.
        steps: How many it trained, None if unknown.
    """
    role = judged_role([stage])
    verdict, told = judge(stage, original, role), told_share(stage, role)
    leaks: Leaks = "unknown"
    sentence = verdict.sentence
    if verdict.badge != "Not judged" and told is not None:
        leaks = "no" if told <= LIMITS.silent else "yes"
    if leaks != "yes" and (remark := told_elsewhere(stage, role)):
        leaks, sentence = "yes", sentence if remark in sentence else f"{sentence}; but {remark}"
    if original is not None and (old_leak := told_share(original, role)) is not None:
        leak = "an unknown share" if told is None else percent(told)
        sentence = f"leaks {percent(old_leak)} before, {leak} after: {sentence}"
        if old_leak <= LIMITS.silent:
            leaks, sentence = "unknown", f"the original did not know them ({percent(old_leak)} of its answers leak)"
    keeps = any(response.role in (Role.RETAIN, Role.RETAIN_TEXT) for response in stage.runs[0].responses)
    return Outcome(
        leaks=leaks,
        sentence=" ".join([sentence, *(f"({note})" for note in verdict.notes)]),
        questions=len(stage.runs[0].responses),
        advice=_advice(leaks, verdict, run, steps, sample=original is not None, keeps=keeps),
        sample=original is not None,
    )


def _advice(leaks: Leaks, verdict: Verdict, run: Run, steps: int | None, *, sample: bool, keeps: bool) -> str:
    """Return what to do next. `keeps`: whether the data have rows that a retain term could hold on to."""
    rate, epochs = run.training.get("lr"), run.training.get("epochs")
    if not run.method or rate is None or epochs is None:
        return ""
    is_bad = verdict.tone == "bad" or "no longer ends" in verdict.sentence
    if steps == 0 and (leaks == "yes" or is_bad):
        return (
            f"Next, in another --out: other settings of {run.method}, which trains nothing (unsee list methods {run.method}), "
            "or a method that trains."
        )
    if leaks == "yes":
        return f"Next, in another --out: a higher training.lr (now {rate:g}) or more training.epochs (now {epochs:g})."
    if is_bad:
        can_hold_on = keeps and run.settings.get("retain_weight") == 0
        weight_option = "--set method.retain_weight=1, " if can_hold_on else ""
        return (
            f"Next, in another --out: {weight_option}a lower training.lr (now {rate:g}) or fewer training.epochs (now {epochs:g}); "
            "training.guard=collapse ends a run before it is destroyed."
        )
    all_questions = f"all questions: unsee eval --model {run.out}; " if sample else ""
    return f"Next: {all_questions}beside the original: unsee compare ORIGINAL {run.out}"


def keep_outcome(folder: Path, outcome: Outcome) -> None:
    """Write the outcome of a finished run into its run.yaml."""
    if not processes.is_main():
        return
    _write_outcome(folder, outcome)
    if outcome.leaks != "unknown":
        tracking.report(folder, {"sample.leaks": float(outcome.leaks == "yes")})


def keep_evaluation(folder: Path) -> None:
    """Write the outcome of a run's evaluation into its run.yaml, so that it outlives the answers.

    Raises:
        UserError: The evaluation cannot be read.
    """
    result = config.result_of(folder)
    outcome = verdict_of(folder) if result else None
    if outcome is not None and not outcome.sample and result.get("verdict") != config.plain(vars(outcome)):
        _write_outcome(folder, outcome)


def _write_outcome(folder: Path, outcome: Outcome) -> None:
    with owner(folder):
        stored_run = config.read_mapping(folder / RECORD)
        result = {**stored_run["result"], "verdict": config.plain(vars(outcome))}
        config.write(folder / RECORD, config.read(folder / RECORD), record=stored_run.get("record", {}), result=result)
