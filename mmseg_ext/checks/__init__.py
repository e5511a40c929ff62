"""Completes and checks a segmentation config before training."""
