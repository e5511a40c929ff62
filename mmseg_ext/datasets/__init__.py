"""Datasets registered with MMSegmentation."""

from mmseg_ext.datasets.digit_scenes import DigitScenes

__all__ = ['DigitScenes']
