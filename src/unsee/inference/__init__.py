"""Batches, prefixes, generation and log-probabilities."""
