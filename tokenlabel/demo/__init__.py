"""The embedded demonstration and its comparisons."""
