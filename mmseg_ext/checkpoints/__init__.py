"""Loading weights into segmentation models, from any training stage and any release."""

from mmseg_ext.checkpoints.segmentation_weights import ReleasedNamesHook

__all__ = ['ReleasedNamesHook']
