"""Workflow of `leaderboard`: the same search for every method, then a final evaluation.

    leaderboard.yaml                   copy of the leaderboard file
    chosen.json                        every setting tried, its distance to gold, what it keeps, the chosen one, and
                                       how many answered alike
    leaderboard.md, leaderboard.json   a table per world and promise, written again after every few methods
    leaderboard.html                   the same with charts
    compare/                           report of the chosen settings in the first world

The rest of the folder is that of a sweep (`unsee.workflows.sweep`), whose cells do all the work. Choosing reads the
questions of the split `selection` only; figures come from `report`, attacks from `attacks`.
"""

from unsee.workflows.leaderboard.search import leaderboard

__all__ = ["leaderboard"]
