"""Workflows behind the commands: unlearning, estimates, sweeps, continual runs, the demo."""
