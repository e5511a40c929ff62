"""Image files, opened but not read yet, to pixels."""

from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

_AS_IT_IS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


def pixels_of(image: Image.Image) -> Tensor:
    """The RGB pixels of an image as `Image.open` returns it, uint8 [height, width, 3].

    JPEG files of three colours are decoded by OpenCV, quicker and to the same pixels.

    Raises:
        OSError: the file is damaged.
    """
    pixels = None
    if image.format == 'JPEG' and image.mode == 'RGB' and image.fp is not None:
        image.fp.seek(0)
        pixels = cv2.imdecode(np.frombuffer(image.fp.read(), dtype=np.uint8), _AS_IT_IS)
    if pixels is None:  # another kind of file, or one that is damaged, which Pillow explains
        pixels = np.array(decode(image))
    return torch.from_numpy(pixels)


def decode(image: Image.Image) -> Image.Image:
    """The RGB pixels of an image as `Image.open` returns it. Raises OSError where the file is damaged."""
    with damage_as_os_error():
        image.load()
        return image if image.mode == 'RGB' else image.convert('RGB')


@contextmanager
def damage_as_os_error() -> Iterator[None]:
    """What Pillow raises for damaged files is of several kinds, which errors of other origin have too."""
    try:
        yield
    except (SyntaxError, ValueError) as error:
        raise OSError(str(error)) from error
