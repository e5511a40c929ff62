"""Augmentations that track the View of the image, and MixToken."""
