"""Converts any image to the RGB pixels that a segmentation model takes."""

from pathlib import Path

import numpy as np
from PIL import Image

from tokenlabel.errors import UserError
from tokenlabel.files.reading import open_regular
from tokenlabel.image_files.channels import channels_of_array, read_channels
from tokenlabel.image_files.eight_bits import rgb_of_array
from tokenlabel.image_files.reading import pixels_of_picture, read_pixels
from tokenlabel.image_files.unreadable import UnreadableImage, named

AnyImage = str | Path | Image.Image | np.ndarray
# Of a pixel that is decoded and segmented: Pillow's four, those of the image in two orders of colour, and spare ones.
BYTES_PER_PIXEL = 10

# Of a channel of a pixel that is read as stored: float32, what the file has, and a copy of either order of axes.
BYTES_PER_NUMBER = 12


def image_channels(image: AnyImage, in_channels: int, memory_limit: int | None = None) -> np.ndarray:
    """An image as it is stored, of any range and number of channels, see `tokenlabel.image_files.channels`.

    Args:
        image: path, PIL image of as many channels, or array [H, W], [H, W, C] or [C, H, W].
        in_channels: how many channels it must have.
        memory_limit: bytes that the image of a file may take; None for no limit.

    Returns:
        float32 [H, W, in_channels].

    Raises:
        UserError: the file is missing, damaged or too large, or the image has other channels or infinite values.
    """
    if isinstance(image, str | Path):
        most = None if memory_limit is None else memory_limit // (BYTES_PER_NUMBER * in_channels)
        with named(image), open_regular(image) as stream:
            return read_channels(stream, in_channels, most)
    if not isinstance(image, Image.Image | np.ndarray):
        raise UserError(f'an image is a path, a PIL image or a NumPy array, and this is a {type(image).__name__}')
    try:
        return channels_of_array(np.asarray(image), in_channels, first=isinstance(image, np.ndarray))
    except UnreadableImage as error:
        raise UserError(f'the image has {error}: {error.remedy}') from error


def image_pixels(image: AnyImage, memory_limit: int | None = None) -> np.ndarray:
    """An image as it is displayed: upright, in colour, 8 bits per channel.

    Files are read as everywhere, see `tokenlabel.image_files.reading`, and pictures and arrays by the same rule, see
    `tokenlabel.image_files.eight_bits`.

    Args:
        image: path, PIL image, or array [H, W], [H, W, 1], [H, W, 3] (RGB) or [H, W, 4] (RGB and opacity) of bool,
            integers or floats.
        memory_limit: bytes that the image of a file may take; None for no limit.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        UserError: the file is missing, damaged or too large, or an array has another shape or range.
    """
    if isinstance(image, str | Path):
        with named(image), open_regular(image) as stream:
            if memory_limit is None:
                return read_pixels(stream, None)
            remedy = f'raise memory_limit (--memory-limit) from {memory_limit / 2**20:.0f} MiB'
            return read_pixels(stream, memory_limit // BYTES_PER_PIXEL, remedy)
    if isinstance(image, Image.Image):
        with named('the PIL image'):
            return pixels_of_picture(image)
    if isinstance(image, np.ndarray):
        try:
            return rgb_of_array(image)
        except UnreadableImage as error:
            raise UserError(f'the array has {error}: {error.remedy}') from error
    raise UserError(f'an image is a path, a PIL image or a NumPy array, and this is a {type(image).__name__}')
