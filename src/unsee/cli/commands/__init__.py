"""Commands of `unsee`, one file each, whose docstring is the command's help.

Each has `options(parser)` and `action(options) -> exit code`.
"""
