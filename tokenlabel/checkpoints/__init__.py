"""Checkpoints: read without running code from them, in the names of every release, and converted between them."""
