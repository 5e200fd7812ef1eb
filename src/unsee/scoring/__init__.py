"""Responses as numbers, without torch."""
