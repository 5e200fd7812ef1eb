"""Benchmarks, one file per data layout, named after the benchmark."""
