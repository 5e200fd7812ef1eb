"""Checkpoints, processors and model families."""
