"""Opening single images of a reader; errors name the image."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from PIL import Image

from tokenlabel.image_files import reading
from tokenlabel.image_files.unreadable import named


def open_rgb(reader: Any, index: int) -> Image.Image:
    """Image number `index` of a timm reader, upright RGB. Raises `UserError` if it cannot be read."""
    with _opened(reader, index) as stream:
        return reading.decode(reading.open_image(stream))


def image_size(reader: Any, index: int) -> tuple[int, int]:
    """(width, height) in pixels of image number `index`, upright. Reads the header only; raises as `open_rgb`."""
    with _opened(reader, index) as stream:
        return reading.image_size(stream)


@contextmanager
def _opened(reader: Any, index: int) -> Iterator[BinaryIO]:
    with named(reader.filename(index, absolute=True)):
        stream, _ = reader[index]
        with stream:
            yield stream
