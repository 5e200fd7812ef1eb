"""Offline report.html and leaderboard from run folders."""

from unsee.report.page import compare, report

__all__ = ["compare", "report"]
