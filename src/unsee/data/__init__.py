"""Readers for benchmarks: tables, records, images, and data checks."""
