"""Single images of a reader, opened with errors that name them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image

from tokenlabel.errors import UserError


def open_rgb(reader: Any, index: int) -> Image.Image:
    """Image number `index` of a timm reader. Raises `UserError` where it cannot be read."""
    with _opened(reader, index) as image:
        return image.convert('RGB')


def image_size(reader: Any, index: int) -> tuple[int, int]:
    """Its width and height in pixels, from the header alone. Raises `UserError` where it cannot be read."""
    with _opened(reader, index) as image:
        return image.size


@contextmanager
def _opened(reader: Any, index: int) -> Iterator[Image.Image]:
    try:
        stream, _ = reader[index]
        with stream, Image.open(stream) as image:
            yield image
    except Exception as error:
        # Pillow raises nearly anything
        path = reader.filename(index, absolute=True)
        raise UserError(f'Cannot read image {path} ({error}): replace or remove it.') from error
