"""Datasets and loading transforms, registered with MMSegmentation."""

from mmseg_ext.datasets.digit_scenes import DigitScenes
from mmseg_ext.datasets.image_mask_folders import ImageMaskFolders
from mmseg_ext.datasets.load_image import LoadImageFromFile, LoadImageFromNDArray
from mmseg_ext.datasets.load_label_map import LoadLabelMap
from mmseg_ext.datasets.local_files import LocalFiles
from mmseg_ext.datasets.random_intensity import RandomIntensity

__all__ = [
    'DigitScenes',
    'ImageMaskFolders',
    'LoadImageFromFile',
    'LoadImageFromNDArray',
    'LoadLabelMap',
    'LocalFiles',
    'RandomIntensity',
]
