"""Augmentations that know where they looked, and MixToken."""
