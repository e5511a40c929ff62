"""Timed comparisons against the straightforward way, two in one run."""
