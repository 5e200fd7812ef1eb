"""Batching, shared prefixes, generation and log-probabilities."""
