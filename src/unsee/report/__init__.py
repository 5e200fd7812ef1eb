"""One offline report.html, and the leaderboard, out of run folders."""

from unsee.report.page import compare, report

__all__ = ["compare", "report"]
