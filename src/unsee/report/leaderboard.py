"""Leaderboard as leaderboard.md and leaderboard.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from unsee.report.attacked import attacks_of
from unsee.report.columns import Column
from unsee.report.read import REFERENCES, Record, Stage, gold_for, only
from unsee.report.summary import judged_role, peak_gib, pooled_score, runs_with, score_text, seconds
from unsee.report.verdict import Verdict, judge, ranked_stages
from unsee.utils.grouping import by_key
from unsee.utils.markdown import cell, table

ANEW: Final = "unsee.evaluation.evaluate.rescore(RUN{})"
"""Call that judges answers again, without a model. Without their gold model it drops the scores beside it."""


def leaderboard(stages: Sequence[Stage], columns: Sequence[Column]) -> dict[str, str]:
    """Return the texts of leaderboard.md and leaderboard.json by file name."""
    role = judged_role(stages)
    original = only(stages, "original")
    verdicts = {stage.name: judge(stage, original, role) for stage in stages}
    order = ranked_stages(stages, verdicts)
    rows = [_row(stage, verdicts[stage.name], columns) for stage in order]
    return {
        "leaderboard.md": markdown(order, verdicts, columns),
        "leaderboard.json": json.dumps(rows, indent=2, ensure_ascii=True) + "\n",
    }


def _row(stage: Stage, verdict: Verdict, columns: Sequence[Column]) -> dict[str, Any]:
    scores = {column.key: score for column in columns if (score := pooled_score(stage, column.key)) is not None}
    return {
        "stage": stage.name,
        "reference": stage.reference,
        "seeds": len(stage.runs),
        "seconds": seconds(stage),
        "peak_gib": peak_gib(stage),
        "verdict": asdict(verdict),
        "scores": {
            key: {
                "value": score.value,
                "interval": score.interval,
                "n": score.n,
                "seeds": len(runs_with(stage, key)),
            }
            for key, score in scores.items()
        },
    }


def markdown(stages: Sequence[Stage], verdicts: dict[str, Verdict], columns: Sequence[Column]) -> str:
    """Return the table in Markdown, in the order given."""
    header = ["model", *(f"{column.key} {column.better}" for column in columns), "seconds", "GiB", "seeds", "verdict"]
    rows = []
    for stage in stages:
        verdict = verdicts[stage.name]
        cells = [stage.name, *(score_text(stage, column.key, 3) or "-" for column in columns)]
        cells += [_number(seconds(stage), 1), _number(peak_gib(stage), 2), str(len(stage.runs))]
        flag = "**collapsed, ranked last** - " if verdict.collapsed and not stage.reference else ""
        rows.append([*cells, flag + verdict.sentence])
    notes = [
        "In brackets: 95 % bootstrap interval over entities (and seeds).",
        *map(cell, (*_missing(stages), *remarks(stages))),
    ]
    return "\n".join([table(header, rows), "", *notes]) + "\n"


def _missing(stages: Sequence[Stage]) -> list[str]:
    """Return why a model lacks forget quality, and why responses are not judged."""
    keys = ("model.fq", *(key for role in ("unseen", "forget") for key in (f"{role}.leak", f"{role}.refusal")))
    reasons = (
        (stage.name, run.scores[key].why) for stage in stages for run in stage.runs for key in keys if key in run.scores
    )
    return list(dict.fromkeys(f"{name}: {reason}." for name, reason in reasons if reason))


def remarks(stages: Sequence[Stage]) -> list[str]:
    """Return what makes rows incomparable: other questions, several originals or gold models, other rules or attacks."""
    lines = []
    runs = [run for stage in stages for run in stage.runs]
    if len({run.questions for run in runs}) > 1:
        groups = by_key((stage.runs[0].questions, stage.name) for stage in stages)
        lines.append(f"Judged on different data: {' / '.join(', '.join(names) for names in groups.values())}.")
    lines += [
        f"There are several models called {kind}, so none is held against them."
        for kind in REFERENCES
        if sum(stage.kind == kind for stage in stages) > 1
    ]
    lines += _of_two_golds(stages)
    gold_names = {run.gold: run.gold_name for run in runs if run.gold}
    if len(gold_names) > 1 and only(stages, "gold") is None:
        clauses = [
            f"{stage.name} against {stage.runs[0].gold_name or 'none'}" for stage in stages if stage.runs[0].gold
        ]
        lines.append(f"Forget quality stands on different gold models and cannot be compared: {', '.join(clauses)}.")
    if len({run.rules for run in runs}) > 1:
        by_rules = by_key((run.rules, stage.name) for stage in stages for run in stage.runs)
        names = " / ".join(", ".join(dict.fromkeys(names)) for names in by_rules.values())
        anew = ANEW.format(", gold=GOLD" if gold_names else "")
        lines.append(f"Judged by the rules of different versions: {names}. Judge the answers anew: {anew}.")
    return lines + _attacked_otherwise([stage for stage in stages if not stage.reference])


def _attacked_otherwise(stages: Sequence[Stage]) -> list[str]:
    """Return which attacks were made differently on whom, so that what they bring back cannot be compared."""
    attacks_by_difference: dict[str, list[str]] = {}
    for name in attacks_of(stages):
        attacked = [(stage, run) for stage in stages for run in stage.runs if "recovered" in run.attacks.get(name, {})]
        made_with = [_made_with(run, name) for _, run in attacked]
        if all(made.get("seed", run.seed) == run.seed for made, (_, run) in zip(made_with, attacked, strict=True)):
            made_with = [{**made, "seed": ""} for made in made_with]  # each with its own, as in sweeps and leaderboards
        aspects = [
            aspect for aspect in dict.fromkeys(key for made in made_with for key in made) if _differs(aspect, made_with)
        ]
        if aspects:
            groups = by_key(
                (tuple(made.get(aspect, "") for aspect in aspects), _run_name(stage, run))
                for made, (stage, run) in zip(made_with, attacked, strict=True)
            )
            names = " / ".join(", ".join(dict.fromkeys(group)) for group in groups.values())
            attacks_by_difference.setdefault(f"with different {', '.join(aspects)}: {names}", []).append(name)
    return [
        f"Attacks were made {difference}. What came back cannot be compared ({', '.join(names)})."
        for difference, names in attacks_by_difference.items()
    ]


def _made_with(run: Record, attack: str) -> dict[str, str]:
    """Return what an attack on a run was made with, as far as it is known. The gold model is that of the run's promise."""
    settings, facts = run.attacks[attack].get("settings"), run.attack_facts
    made = {} if settings is None else {"settings": json.dumps(settings, sort_keys=True)}
    if facts:
        gold = f"gold model for {run.promise}"
        made |= {
            "split": str(facts.get("split", "all")),
            "data": str(facts.get("data", "")),
            gold: str(facts.get("gold", "")),
            "seed": str(facts.get("seed", 0)),
        }
    return made


def _differs(aspect: str, made_with: Sequence[Mapping[str, str]]) -> bool:
    return len({made[aspect] for made in made_with if aspect in made}) > 1


def _run_name(stage: Stage, run: Record) -> str:
    return stage.name if len(stage.runs) == 1 else f"{stage.name} {run.folder.name}"


def _of_two_golds(stages: Sequence[Stage]) -> list[str]:
    """Return which rows are held against which gold model, if not all against one."""
    methods = [stage for stage in stages if not stage.reference]
    golds = [(gold_for(stages, stage.runs[0].promise), stage.name) for stage in methods]
    names_by_gold = by_key((gold.name, name) for gold, name in golds if gold is not None)
    if len(names_by_gold) < 2:
        return []
    clauses = (f"{', '.join(names)} from {gold}" for gold, names in names_by_gold.items())
    return [f"Distances are from the gold model of each promise: {'; '.join(clauses)}."]


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
