"""Unlearning methods, one file or folder (with `method.py`) each; its name is the name of the method."""
