"""Benchmarks against a straightforward implementation; both are timed in the same run."""
