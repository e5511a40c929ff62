"""Weights for segmentation models, from any stage and any release."""

from mmseg_ext.checkpoints.segmentation_weights import ReleasedNamesHook

__all__ = ['ReleasedNamesHook']
