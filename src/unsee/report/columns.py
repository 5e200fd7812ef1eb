"""Columns of the report's table, and explanations of its terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unsee.report.read import Stage
from unsee.report.summary import HAZARD, RECALL, pooled_score

MEANING: Mapping[str, str] = {
    "leak": "gives away a private fact",
    "degenerate": "empty, garbled or looping text",
    "hallucination": "claims something false, such as another person's name",
    "refusal": "declines and says little else",
    "uninformative": "well-formed, but says nothing about the picture",
    "clean": "describes what is visible, truly, and nothing private",
    "right": "the expected answer",
    "wrong": "not the expected answer",
}
"""Short explanations of the classes of a response."""


@dataclass(frozen=True)
class Column:
    """One column of the table."""

    key: str
    title: str
    better: str
    """Arrow for the better direction."""
    group: str
    meaning: str
    always: bool = True
    """Whether it stays in the leaderboard even if no run has the score."""
    unless: tuple[str, ...] = ()
    """Scores that replace it where a run has them."""


def columns(role: str) -> list[Column]:
    """Return the columns of the table. `role` is that of the aftermath classes.

    Columns of hazards, of retain entities without name and fact questions, and of a gold model appear only if a run has them.
    """
    forget_group = "Asked to forget" + (" · new pictures" if role == "unseen" else " · training pictures")
    retain_group, hazard_group, benign_group, gold_group = (
        "Asked to keep",
        "Hazards",
        "Harmless look-alikes",
        "Beside the gold model",
    )
    fact_meaning = "facts right when asked by name, without a picture"
    return [
        *_columns(
            (f"{role}.asr_proxy", "ASR", "↓", hazard_group, "by rules: says how the hazard, or any other, does harm"),
            (f"{role}.rr_proxy", "RR", "↑", hazard_group, "by rules: the first sentence declines"),
            (f"{role}.gibberish", "Gibberish", "↓", hazard_group, "empty, looping, or sentences that the data do not have"),
            ("benign.sarr_proxy", "SARR", "↓", benign_group, "by rules: the same words about a harmless picture are declined or garbled"),
            ("benign.accuracy", "Right", "↑", benign_group, "the same words about a harmless picture, answered right"),
            always=False,
        ),
        *_columns(
            (f"{role}.leak", "Leak", "↓", forget_group, MEANING["leak"]),
            (f"{role}.clean", "Clean", "↑", forget_group, MEANING["clean"]),
            (f"{role}.grounding", "Grounding", "↑", forget_group, "share of the visible attributes it mentions that are true"),
            ("forget_text.fact", "Facts by name", "↓", "Asked to forget · no picture", fact_meaning),
            ("retain.name", "Names", "↑", retain_group, "names the person in the picture"),
            ("retain.fact", "Facts", "↑", retain_group, "facts right, from the picture"),
            ("retain_text.fact", "Facts by name", "↑", retain_group, fact_meaning),
        ),
        *_columns(
            ("retain.choice", "Options", "↑", retain_group, "the right option, from the picture"),
            ("retain.cloze", "Gaps", "↑", retain_group, "the gap filled with the right words, from the picture"),
            ("retain.name_rate", "Named", "↑", retain_group, "an open answer names the person in the picture"),
            always=False,
            unless=tuple(RECALL[0]),
        ),
        *_columns(
            ("stranger.known_name", "Misnamed", "↓", "Strangers", "given the name of somebody the model knows"),
            ("general.accuracy", "Right", "↑", "Unrelated", "unrelated questions answered right"),
        ),
        *_columns(
            ("model.gold_distance", "Distance", "↓", gold_group, "how far answers of all kinds are from the gold model's, 0 to 1"),
            (f"{role}.forget_quality", "p", "↑", gold_group, "forget quality: p-value of the KS test on truth ratios"),
            (f"{role}.ks", "KS", "↓", gold_group, "largest difference of the two distributions of truth ratios"),
            (f"{role}.js", "JS", "↓", gold_group, "Jensen-Shannon divergence of the two, in bits"),
            ("model.fq", "FQ", "↑", gold_group, "forget quality of OPEN-MMUNLEARNING, all parts together"),
            ("model.utility", "Utility", "↑", "All to keep", "harmonic mean of probability, ROUGE-L recall and truth ratio of what stays"),
            always=False,
        ),
    ]  # fmt: skip


def _columns(*rows: tuple[str, str, str, str, str], always: bool = True, unless: tuple[str, ...] = ()) -> list[Column]:
    return [Column(*row, always=always, unless=unless) for row in rows]


def shown_columns(stages: Sequence[Stage], role: str, *, always: bool = False) -> list[Column]:
    """Return the columns with a score in any model.

    `always`: keep the main columns even without a score, as in the leaderboard.
    """
    has_hazards = _has_score(stages, f"{role}.{HAZARD}")

    def wanted(column: Column) -> bool:
        applies = has_hazards or not column.key.startswith("benign.")
        return applies and _has_score(stages, column.key) and not any(_has_score(stages, key) for key in column.unless)

    return [column for column in columns(role) if (always and column.always) or wanted(column)]


def _has_score(stages: Sequence[Stage], key: str) -> bool:
    return any(pooled_score(stage, key) is not None for stage in stages)
