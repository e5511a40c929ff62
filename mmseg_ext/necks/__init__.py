"""Necks that MMSegmentation builds by name."""

from mmseg_ext.necks.token_pyramid import TokenPyramid
from mmseg_ext.necks.token_pyramid_fpn import TokenPyramidFPN

__all__ = ['TokenPyramid', 'TokenPyramidFPN']
