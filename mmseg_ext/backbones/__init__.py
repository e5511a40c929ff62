"""Backbones that MMSegmentation builds by name."""

from mmseg_ext.backbones.lvvit import LVViT

__all__ = ['LVViT']
