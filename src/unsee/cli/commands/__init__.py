"""What can be typed after `unsee`: one file per command, each with `options(parser)` and `action(options) -> exit code`; its docstring is its help."""
