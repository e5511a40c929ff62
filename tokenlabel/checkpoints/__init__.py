"""Checkpoints: safe reading, renaming between releases, and conversion."""
