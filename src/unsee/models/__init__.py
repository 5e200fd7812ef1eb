"""Checkpoints, processors, model families and steering."""
