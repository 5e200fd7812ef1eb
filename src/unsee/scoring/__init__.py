"""Scores from responses, without torch."""
