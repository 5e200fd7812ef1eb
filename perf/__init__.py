"""Paired measurements: unsee, the conventional way, and the bare passes of a loss."""
