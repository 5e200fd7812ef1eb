"""Asking a model and judging its responses."""
