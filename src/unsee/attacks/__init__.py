"""Attacks that try to bring back what a model no longer says, one file each."""
