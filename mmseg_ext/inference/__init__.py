"""A trained segmentation model as a function of images of any size and kind."""

from mmseg_ext.inference.segmenter import Segmenter

__all__ = ['Segmenter']
