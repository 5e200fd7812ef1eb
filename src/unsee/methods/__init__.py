"""Unlearning methods, one file or folder (with `method.py`) each, named after the method."""
