"""Converts pixels of any type to 8-bit RGB, with the same rules for Pillow images and arrays.

- uint8 is unchanged. For uint16 the upper 8 bits are used.
- Other integers are treated as 8, 16 or 32 bits wide: the smallest width that holds all values of the image, at most
  that of their type without the sign. Then the upper 8 bits are used.
- Floats in [0, 1] are multiplied by 255. Other floats must be in [0, 255]. The result is rounded.
- False is 0 and True is 255.
- Grey is repeated. Palettes, CMYK, YCbCr, CIELAB and HSV are converted to RGB. Transparent pixels are blended with
  white.

0 thus becomes 0, the largest value of a type becomes 255, and the order of values is preserved.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from PIL import Image

from tokenlabel.image_files.unreadable import UnreadableImage

WHITE = 255
BAND = 2**22  # pixels converted at a time, to limit memory
NUMBERS = ('I', 'F', 'I;16', 'I;16L', 'I;16B', 'I;16N')  # Pillow's modes for grey with more than 8 bits
PREMULTIPLIED = {'La': 'LA', 'RGBa': 'RGBA'}
BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF files
MIN_IS_WHITE, SIGNED = 0, 2  # values of PHOTOMETRIC and SAMPLE_FORMAT


def rgb_of_array(array: np.ndarray) -> np.ndarray:
    """Converts an array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] (with opacity) to uint8 [H, W, 3].

    The order of the colour channels is kept.

    Raises:
        UnreadableImage: the array has another shape or dtype, or values out of range.
    """
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise UnreadableImage(
            f'the shape {list(array.shape)}', 'give [H, W], [H, W, 3] or [H, W, 4], with the channels last'
        )
    if array.dtype.kind not in 'buif':
        raise UnreadableImage(f'numbers of type {array.dtype}', 'give bool, integers or floats')
    bits = _bits(array.dtype, array.min(), array.max())
    pixels = np.empty((*array.shape[:2], 3), np.uint8)
    for rows in _bands(*array.shape[:2]):
        pixels[rows] = _on_white(_eight_bits(array[rows], bits))
    return pixels


def rgb_of_picture(picture: Image.Image) -> np.ndarray:
    """Converts a Pillow image of any mode to uint8 [H, W, 3].

    Raises:
        UnreadableImage: values out of range.
    """
    picture.load()
    tags = getattr(picture, 'tag_v2', {})  # of a TIFF file
    is_signed = tags.get(SAMPLE_FORMAT) == (SIGNED,)
    if picture.mode not in NUMBERS and not (picture.mode == 'L' and is_signed):
        return _rgb_of_colors(picture)
    dtype = _dtype(picture, tags, is_signed)
    bands = list(_bands(picture.height, picture.width))
    extrema = [(numbers.min(), numbers.max()) for numbers in (_band(picture, rows, dtype) for rows in bands)]
    lowest, highest = np.min([pair[0] for pair in extrema]), np.max([pair[1] for pair in extrema])
    bits = _bits(dtype, lowest, highest, tags.get(BITS, (16,))[0] if dtype == np.uint16 else None)
    pixels = np.empty((picture.height, picture.width, 3), np.uint8)
    for rows in bands:
        numbers = _band(picture, rows, dtype)
        grey = _eight_bits(numbers, bits)
        if tags.get(PHOTOMETRIC) == MIN_IS_WHITE:
            grey = WHITE - grey
        key = picture.info.get('transparency')
        pixels[rows] = (grey if key is None else np.where(numbers == key, np.uint8(WHITE), grey))[..., None]
    return pixels


def _rgb_of_colors(picture: Image.Image) -> np.ndarray:
    mode = 'RGBA' if picture.has_transparency_data else 'RGB'
    pixels = np.empty((picture.height, picture.width, 3), np.uint8)
    for rows in _bands(*pixels.shape[:2]):
        band = picture.crop((0, rows.start, picture.width, rows.stop))
        band = band.convert(PREMULTIPLIED.get(band.mode, band.mode))
        pixels[rows] = _on_white(np.asarray(band.convert(mode)))
    return pixels


def _dtype(picture: Image.Image, tags: Mapping, is_signed: bool) -> np.dtype:
    """The dtype of the values in the file; Pillow may use a wider one."""
    if picture.mode == 'F':
        return np.dtype(np.float32)
    if picture.mode == 'I' and picture.format not in ('PNG', 'PPM'):  # older Pillow stores 16 bits in 32
        return np.dtype(f'int{tags[BITS][0]}' if is_signed else np.uint32 if tags else np.int32)
    return np.dtype(np.int8 if picture.mode == 'L' else np.uint16)


def _band(picture: Image.Image, rows: slice, dtype: np.dtype) -> np.ndarray:
    return np.asarray(picture.crop((0, rows.start, picture.width, rows.stop))).astype(dtype)


def _bits(dtype: np.dtype, lowest: float, highest: float, depth: int | None = None) -> int:
    """Number of bits of integer values; for floats 1 if they are in [0, 1] and 8 otherwise.

    Raises:
        UnreadableImage: the values are out of range.
    """
    if dtype.kind == 'b':
        return 1
    if dtype.kind == 'f':
        widths, allowed = (1, 8), '[0, 1] or [0, 255]'
        fits = [width for width in widths if highest <= (1 if width == 1 else 255)]
    else:
        own = depth or 8 * dtype.itemsize - (dtype.kind == 'i')
        widths = (own,) if dtype in (np.uint8, np.uint16) else (min(8, own), min(16, own), min(32, own))
        fits, allowed = [width for width in widths if highest < 2**width], '0 to 255, or 0 to 65535 for 16 bits'
    if not lowest >= 0 or not fits:  # `not ... >= 0`, so that NaN is refused too
        raise UnreadableImage(f'values from {lowest} to {highest}', f'scale them to {allowed}')
    return fits[0]


def _eight_bits(numbers: np.ndarray, bits: int) -> np.ndarray:
    """Scales values with the given number of bits, see `_bits`, to uint8."""
    if numbers.dtype == np.uint8:
        return numbers
    if numbers.dtype.kind == 'f':
        return np.rint(numbers * numbers.dtype.type(255 if bits == 1 else 1)).astype(np.uint8)
    if bits < 8:
        return (numbers.astype(np.uint16) * 255 // (2**bits - 1)).astype(np.uint8)
    return (numbers >> (bits - 8)).astype(np.uint8)


def _on_white(pixels: np.ndarray) -> np.ndarray:
    """Blends uint8 [H, W] or [H, W, 1, 3 or 4] (the fourth channel is opacity) with white, to [H, W, 1 or 3]."""
    if pixels.ndim == 2:
        return pixels[..., None]
    if pixels.shape[2] != 4:
        return pixels
    opacity = pixels[..., 3:].astype(np.uint16)
    mixed = pixels[..., :3] * opacity + WHITE * (WHITE - opacity)
    return ((mixed + WHITE // 2) // WHITE).astype(np.uint8)


def _bands(height: int, width: int) -> Iterator[slice]:
    step = max(1, BAND // width)
    for start in range(0, height, step):
        yield slice(start, min(start + step, height))
