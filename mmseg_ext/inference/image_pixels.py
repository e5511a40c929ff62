"""Images of any kind as the 8-bit RGB pixels that segmentation models are trained on."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from tokenlabel.errors import UserError

AnyImage = str | Path | Image.Image | np.ndarray

# What is seen through transparent pixels: white, as viewers show it.
BEHIND = (255, 255, 255)


def image_pixels(image: AnyImage) -> np.ndarray:
    """An image as a person sees it: upright, in colour, 8 bits a channel.

    Grey, palette, CMYK and 1-bit images become RGB, transparent ones are laid on white, and EXIF orientation is
    applied. Of 16 bits the upper 8 are kept, as OpenCV does when it loads training images.

    Args:
        image: path, PIL image, or array [H, W], [H, W, 1], [H, W, 3] (RGB) or [H, W, 4] (RGB and opacity): bool,
            uint8, uint16, another integer type with values in 0..255, or floats in [0, 1] or [0, 255].

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        UserError: the file is missing or damaged, or an array has another shape or range.
    """
    if isinstance(image, str | Path):
        return _pixels_of_file(Path(image))
    if isinstance(image, Image.Image):
        return _pixels_of_picture(image, 'the image')
    if isinstance(image, np.ndarray):
        return _pixels_of_array(image, 'the array')
    raise UserError(f'an image is a path, a PIL image or a NumPy array, and this is a {type(image).__name__}')


def _pixels_of_file(path: Path) -> np.ndarray:
    if not path.is_file():
        raise UserError(f'there is no image {path}: check the path')
    try:
        with _of_any_size(), Image.open(path) as picture:
            return _pixels_of_picture(picture, str(path))
    except UnidentifiedImageError as error:
        raise UserError(f'{path} is damaged or no image: replace or remove it') from error
    except UserError:
        raise
    except Exception as error:  # the bytes of a damaged file can fail in any way
        raise UserError(f'{path} cannot be read as an image ({error}): replace or remove it') from error


@contextmanager
def _of_any_size() -> Iterator[None]:
    """Lets Pillow open huge images: here they are what people ask for, not an attack."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _pixels_of_picture(picture: Image.Image, name: str) -> np.ndarray:
    with warnings.catch_warnings():
        # damaged EXIF or a palette with odd transparency: the pixels are there
        warnings.simplefilter('ignore', UserWarning)
        picture = ImageOps.exif_transpose(picture)
        if picture.mode.startswith(('I', 'F')):  # 16 or 32 bits of grey
            array = np.asarray(picture)
            sixteen = picture.mode == 'I' and array.min() >= 0 and array.max() <= 65535
            return _pixels_of_array(array.astype(np.uint16) if sixteen else array, name)
        if picture.has_transparency_data:
            picture = picture.convert('RGBA')
            behind = Image.new('RGBA', picture.size, (*BEHIND, 255))
            picture = Image.alpha_composite(behind, picture)
        return np.array(picture.convert('RGB'))


def _pixels_of_array(array: np.ndarray, name: str) -> np.ndarray:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise UserError(
            f'{name} has the shape {list(array.shape)}: give [H, W], [H, W, 3] or [H, W, 4], the channels last'
        )
    pixels = _eight_bits(array, name)
    if pixels.shape[2] == 4:
        opacity = pixels[..., 3:].astype(np.float32) / 255
        pixels = np.rint(pixels[..., :3] * opacity + np.float32(BEHIND) * (1 - opacity)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _eight_bits(array: np.ndarray, name: str) -> np.ndarray:
    kind = array.dtype.kind
    if array.dtype == np.uint8:
        return array
    if kind == 'b':
        return array.astype(np.uint8) * np.uint8(255)
    if kind not in 'uif':
        raise UserError(f'{name} holds {array.dtype}: give bool, integers or floats')
    lowest, highest = array.min(), array.max()
    if not (lowest >= 0 and highest <= (255 if kind == 'f' else 65535)):  # also where there is a NaN
        allowed = '[0, 1] or [0, 255]' if kind == 'f' else '0 to 255, or 0 to 65535 for 16 bits'
        raise UserError(f'{name} has values from {lowest} to {highest}: scale them to {allowed}')
    if kind == 'f':
        return np.rint(array * (255 if highest <= 1 else 1)).astype(np.uint8)
    sixteen = (kind == 'u' and array.itemsize == 2) or highest > 255
    return (array >> 8 if sixteen else array).astype(np.uint8)
