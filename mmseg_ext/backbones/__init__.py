"""Backbones that MMSegmentation builds by name."""

from mmseg_ext.backbones.lvvit import LVViT
from mmseg_ext.backbones.timm_tokens import TimmTokens

__all__ = ['LVViT', 'TimmTokens']
