"""The costliest of RandAugment's operations by OpenCV, several times as quick as Pillow's and close to them."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL.Image import Resampling
from timm.data.constants import IMAGENET_DEFAULT_MEAN

Pixels = NDArray[np.uint8]
FILL = tuple(round(255 * value) for value in IMAGENET_DEFAULT_MEAN)  # what an operation shifts in, as in timm

INTERPOLATIONS = {Resampling.BILINEAR: cv2.INTER_LINEAR, Resampling.BICUBIC: cv2.INTER_CUBIC}

_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], dtype=np.float32) / 13


def warp(pixels: Pixels, matrix: NDArray[np.float64], resample: Resampling) -> Pixels:
    """An affine map of an image within its frame, what is outside filled with the mean colour.

    Positions are rounded to 1/32 pixel, the fill is blended with the image at its border, and bicubic is sharper (its
    kernel's parameter is -0.75, Pillow's -0.5).

    Args:
        pixels: [H, W, 3].
        matrix: [2, 3], source = matrix @ (x, y, 1) in pixels, (0, 0) being the corner of the first pixel.
        resample: one of `INTERPOLATIONS`.
    """
    # OpenCV counts from the middle of the first pixel.
    middle = np.full(2, 0.5)
    matrix = np.column_stack([matrix[:, :2], matrix[:, :2] @ middle + matrix[:, 2] - middle])
    flags = INTERPOLATIONS[resample] | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(pixels, matrix, pixels.shape[1::-1], flags=flags, borderValue=FILL)


def sharpen(pixels: Pixels, factor: float) -> Pixels:
    """`factor` of the image [H, W, 3] and 1 - factor of a smoothed one, but for the outermost pixels."""
    smooth = pixels.copy()
    smooth[1:-1, 1:-1] = cv2.filter2D(pixels, -1, _SMOOTH)[1:-1, 1:-1]
    return cv2.addWeighted(pixels, factor, smooth, 1 - factor, 0)


PHOTOMETRIC: dict[str, Callable[[Pixels, float], Pixels]] = {'Sharpness': sharpen, 'SharpnessIncreasing': sharpen}
