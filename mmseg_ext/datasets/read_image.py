"""Images that data sets name, read as RGB or, where a config says `model.in_channels`, as they are stored."""

from pathlib import Path

import numpy as np

from mmseg_ext.datasets.stored_files import open_stored
from tokenlabel.image_files.channels import channels_size, read_channels
from tokenlabel.image_files.reading import image_size, read_pixels
from tokenlabel.image_files.unreadable import named
from tokenlabel.pictures.stretched import stretched


def read_image(path: str | Path, in_channels: int | None = None, backend_args: dict | None = None) -> np.ndarray:
    """An upright image: RGB, uint8 [H, W, 3]; with `in_channels` the numbers as stored, float32 [H, W, in_channels].

    Args:
        path: of the file, or its URI.
        in_channels: how many channels it must have; None for RGB of any file.
        backend_args: file backend, as MMEngine configures it.

    Raises:
        UserError: it cannot be read, or has another number of channels.
    """
    with named(path), open_stored(path, backend_args) as stream:
        return read_pixels(stream) if in_channels is None else read_channels(stream, in_channels)


def read_picture(path: str | Path, in_channels: int | None = None, backend_args: dict | None = None) -> np.ndarray:
    """An image to look at, RGB, uint8 [H, W, 3]; arguments and errors as in `read_image`."""
    image = read_image(path, in_channels, backend_args)
    return image if in_channels is None else stretched(image)


def read_size(path: str | Path, in_channels: int | None = None) -> tuple[int, int]:
    """Width and height of the upright image in pixels, from its header; arguments and errors as in `read_image`."""
    with named(path), open_stored(path) as stream:
        return image_size(stream) if in_channels is None else channels_size(stream, in_channels)
