"""Files, memory, parsing, seeds, terminal output, trackers and fast-path switches."""
