"""Benchmarks, one file per data layout; the file name is its name."""
