"""Losses, registered with MMSegmentation."""

from mmseg_ext.losses.cross_entropy import CrossEntropyLoss

__all__ = ['CrossEntropyLoss']
