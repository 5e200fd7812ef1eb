"""Metrics as pure functions on text and numbers, one file each.

`unsee.evaluate` decides which metric applies to which response; a file here only measures.
A file whose name is a metric (`rouge.py`, `choice.py`, ...) has doctests with exact numbers.
"""
