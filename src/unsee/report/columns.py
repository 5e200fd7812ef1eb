"""Columns of the report's table, and explanations of its terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unsee.report.read import Stage
from unsee.report.summary import HAZARD, RECALL, pooled

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


@dataclass(frozen=True, kw_only=True)
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
    """Return the columns of the table. `role` is that of the aftermath classes."""
    wanted = "Asked to forget" + (" · new pictures" if role == "unseen" else " · training pictures")
    return [
        *_safety(role),
        Column(key=f"{role}.leak", title="Leak", better="↓", group=wanted, meaning=MEANING["leak"]),
        Column(key=f"{role}.clean", title="Clean", better="↑", group=wanted, meaning=MEANING["clean"]),
        Column(
            key=f"{role}.grounding",
            title="Grounding",
            better="↑",
            group=wanted,
            meaning="share of the visible attributes it mentions that are true",
        ),
        Column(
            key="forget_text.fact",
            title="Facts by name",
            better="↓",
            group="Asked to forget · no picture",
            meaning="facts right when asked by name, without a picture",
        ),
        Column(
            key="retain.name",
            title="Names",
            better="↑",
            group="Asked to keep",
            meaning="names the person in the picture",
        ),
        Column(
            key="retain.fact", title="Facts", better="↑", group="Asked to keep", meaning="facts right, from the picture"
        ),
        Column(
            key="retain_text.fact",
            title="Facts by name",
            better="↑",
            group="Asked to keep",
            meaning="facts right when asked by name, without a picture",
        ),
        *_instead(),
        Column(
            key="stranger.known_name",
            title="Misnamed",
            better="↓",
            group="Strangers",
            meaning="given the name of somebody the model knows",
        ),
        Column(
            key="general.accuracy",
            title="Right",
            better="↑",
            group="Unrelated",
            meaning="unrelated questions answered right",
        ),
        *_aggregates(role),
    ]


def _instead() -> list[Column]:
    """Return the columns for retain entities without name and fact questions."""
    keep = "Asked to keep"
    rows = (
        ("retain.choice", "Options", "the right option, from the picture"),
        ("retain.cloze", "Gaps", "the gap filled with the right words, from the picture"),
    )
    unless = tuple(RECALL[0])
    return [
        Column(key=key, title=title, better="↑", group=keep, meaning=meaning, always=False, unless=unless)
        for key, title, meaning in rows
    ]


def _aggregates(role: str) -> list[Column]:
    """Return the columns that need log-probabilities and a gold model, where a run has them."""
    beside, kept = "Beside the gold model", "All to keep"
    utility = "harmonic mean of probability, ROUGE-L recall and truth ratio of what stays"
    rows = (
        (
            "model.gold_distance",
            "Distance",
            "↓",
            beside,
            "how far answers of all kinds are from the gold model's, 0 to 1",
        ),
        (f"{role}.forget_quality", "p", "↑", beside, "forget quality: p-value of the KS test on truth ratios"),
        (f"{role}.ks", "KS", "↓", beside, "largest difference of the two distributions of truth ratios"),
        (f"{role}.js", "JS", "↓", beside, "Jensen-Shannon divergence of the two, in bits"),
        ("model.fq", "FQ", "↑", beside, "forget quality of OPEN-MMUNLEARNING, all parts together"),
        ("model.utility", "Utility", "↑", kept, utility),
    )
    return [
        Column(key=key, title=title, better=better, group=group, meaning=meaning, always=False)
        for key, title, better, group, meaning in rows
    ]


def _safety(role: str) -> list[Column]:
    """Return the columns of hazards and look-alikes, where hazards were asked about."""
    hazards, harmless = "Hazards", "Harmless look-alikes"
    rows = (
        (f"{role}.asr_proxy", "ASR", "↓", hazards, "by rules: says how the hazard, or any other, does harm"),
        (f"{role}.rr_proxy", "RR", "↑", hazards, "by rules: the first sentence declines"),
        (f"{role}.gibberish", "Gibberish", "↓", hazards, "empty, looping, or sentences that the data do not have"),
        (
            "benign.sarr_proxy",
            "SARR",
            "↓",
            harmless,
            "by rules: the same words about a harmless picture are declined or garbled",
        ),
        ("benign.accuracy", "Right", "↑", harmless, "the same words about a harmless picture, answered right"),
    )
    return [
        Column(key=key, title=title, better=better, group=group, meaning=meaning, always=False)
        for key, title, better, group, meaning in rows
    ]


def shown(stages: Sequence[Stage], role: str, *, always: bool = False) -> list[Column]:
    """Return the columns with a score in any model.

    `always`: those of the leaderboard, which has its main columns in any case.
    """
    hazards = _held(stages, f"{role}.{HAZARD}")

    def wanted(column: Column) -> bool:
        beside = hazards or not column.key.startswith("benign.")
        return beside and _held(stages, column.key) and not any(_held(stages, key) for key in column.unless)

    return [column for column in columns(role) if (always and column.always) or wanted(column)]


def _held(stages: Sequence[Stage], key: str) -> bool:
    return any(pooled(stage, key) is not None for stage in stages)
