"""The image reader of all commands. It decodes files to upright 8-bit RGB.

Annotation, pretraining, segmentation and evaluation use this reader, so that they get the same pixels. See
`tokenlabel.image_files.eight_bits` for the conversion to 8 bits. The EXIF orientation is applied, colour profiles are
not. If a file contains several images, the first one is read.
"""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from tokenlabel.image_files import png
from tokenlabel.image_files.eight_bits import rgb_of_picture
from tokenlabel.image_files.unreadable import UnreadableImage

# Recognised by content, not by name. Formats for which Pillow starts another program, such as EPS, are left out.
FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'TIFF', 'GIF', 'PPM', 'JPEG2000')
DEEP = ('PNG', 'PPM', 'JPEG2000')  # Pillow reduces 16-bit colours of these to 8 bits
PNG_DEPTH = 24  # offset of the bit depth in a PNG file; the colour type follows
LOSSY = ('JPEG', 'MPO', 'JPEG2000', 'WEBP')  # not suitable for masks, because compression changes class ids
# A small file may declare any size. This limit corresponds to 23000 x 23000 pixels or 1.6 GB of RGB.
MAX_PIXELS = 2**29
ORIENTATION = 0x0112
WIDTH, HEIGHT, BITS, SAMPLES, TILE_WIDTH, TILE_HEIGHT = 256, 257, 258, 277, 322, 323  # tags of TIFF files
logging.getLogger('PIL').addHandler(logging.NullHandler())  # UnreadableImage already contains what it logs
AS_STORED = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


def open_image(stream: BinaryIO, max_pixels: int | None = MAX_PIXELS) -> Image.Image:
    """Opens an image: upright JPEG files are not decoded yet, all others are RGB. `size` is that of the upright image.

    The caller can decode a JPEG file at a fraction of its size with Pillow's `draft`. Pass the result to `decode` or
    `rgb_pixels` while the stream is open.

    Args:
        stream: the file, seekable.
        max_pixels: larger images are refused without decoding them; None for no limit.

    Raises:
        UnreadableImage: the file is empty, damaged, too large or of an unsupported format.
    """
    image = _opened(stream, max_pixels)
    if image.format == 'JPEG' and _orientation(image) == 1:
        return image
    return Image.fromarray(upright(rgb_pixels(image), _orientation(image)))


def decode(image: Image.Image) -> Image.Image:
    """Decodes the result of `open_image` to RGB. Raises UnreadableImage if the file is damaged."""
    with _pillow():
        image.load()
        return image if image.mode == 'RGB' else Image.fromarray(rgb_of_picture(image))


def rgb_pixels(image: Image.Image) -> np.ndarray:
    """Decodes the result of `open_image` to RGB pixels, uint8 [H, W, 3].

    OpenCV decodes RGB JPEG files, because it is faster and gives the same pixels.

    Raises:
        UnreadableImage: the file is damaged.
    """
    pixels = None
    if image.format == 'JPEG' and image.mode == 'RGB' and image.fp is not None:
        image.fp.seek(0)
        try:
            pixels = cv2.imdecode(np.frombuffer(image.fp.read(), dtype=np.uint8), AS_STORED)
        except cv2.error:  # OpenCV has its own limit of pixels
            image.fp.seek(0)
    if pixels is None:  # another format, or a damaged file, whose error Pillow explains
        with _pillow():
            pixels = rgb_of_picture(image)
    return pixels


def read_pixels(stream: BinaryIO, max_pixels: int | None = MAX_PIXELS, remedy: str | None = None) -> np.ndarray:
    """The upright RGB pixels of an image file, uint8 [H, W, 3].

    Args:
        stream: the file, seekable.
        max_pixels: larger images are refused without decoding them; None for no limit.
        remedy: what to do about a larger image, for the message; None for a general remedy.

    Raises:
        UnreadableImage: as `open_image`.
    """
    image = _opened(stream, max_pixels, remedy)
    return upright(rgb_pixels(image), _orientation(image))


def pixels_of_picture(picture: Image.Image) -> np.ndarray:
    """The upright RGB pixels of a Pillow image of any mode, uint8 [H, W, 3].

    Raises:
        UnreadableImage: its file is damaged, or its values are out of range.
    """
    with _pillow():
        return upright(rgb_of_picture(picture), _orientation(picture))


def image_size(stream: BinaryIO) -> tuple[int, int]:
    """Width and height in pixels of the upright image, from the file's header alone.

    Raises:
        UnreadableImage: the file is empty, or has no header of a supported format.
    """
    image = _opened(stream, None, pixels=False)
    if image.format == 'TIFF':
        width, height, orientation = (image.tag_v2.get(tag, 1) for tag in (WIDTH, HEIGHT, ORIENTATION))
    else:
        (width, height), orientation = image.size, _orientation(image)
    return (height, width) if orientation in (5, 6, 7, 8) else (width, height)


def read_numbers(stream: BinaryIO, max_pixels: int | None = MAX_PIXELS) -> tuple[np.ndarray, str | None]:
    """The stored values of an image file, upright: [H, W] for one channel or palette indices, else [H, W, C].

    Returns:
        The array, and the name of the file's lossy compression, or None.

    Raises:
        UnreadableImage: as `open_image`.
    """
    image = _opened(stream, max_pixels)
    methods = (image.format, str(image.info.get('compression')).removeprefix('tiff_').upper())
    lossy = next((method for method in methods if method in LOSSY), None)
    grey_step = _grey_step(image)
    with _pillow():
        numbers = np.asarray(image)
        return upright(numbers // grey_step if grey_step > 1 else numbers, _orientation(image)), lossy


def read_all_bits(stream: BinaryIO, max_pixels: int | None = MAX_PIXELS) -> np.ndarray:
    """As `read_numbers`, but converts palette indices to colours and keeps all 16 bits of 16-bit colours.

    Returns:
        [H, W] or [H, W, C] with the dtype of the file.

    Raises:
        UnreadableImage: as `open_image`.
    """
    image = _opened(stream, max_pixels)
    if image.format == 'JPEG' and image.mode == 'RGB':
        return upright(rgb_pixels(image), _orientation(image))
    if image.format in DEEP and len(image.getbands()) > 1 and (colours := _deep_colours(image)) is not None:
        return upright(colours, _orientation(image))
    if image.mode in ('P', 'PA'):
        with _pillow():
            colours = np.asarray(image.convert('RGBA' if image.has_transparency_data else 'RGB'))
        return upright(colours, _orientation(image))
    return read_numbers(stream, max_pixels)[0]


def stored_bits(stream: BinaryIO) -> int:
    """Bits per sample of a PNG or TIFF file, from its header; 8 for other formats.

    Raises:
        UnreadableImage: the file is empty, or has no header of a supported format.
    """
    image = _opened(stream, None, pixels=False)
    if image.format == 'TIFF':
        return max(image.tag_v2.get(BITS, (1,)))
    if image.format != 'PNG':
        return 8
    stream.seek(PNG_DEPTH)
    return stream.read(1)[0]


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Applies an EXIF orientation, 1 to 8, to pixels [H, W, ...]."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _opened(stream: BinaryIO, max_pixels: int | None, remedy: str | None = None, pixels: bool = True) -> Image.Image:
    """Opens a file with Pillow and checks its header. Reads only the header unless `pixels`."""
    stream.seek(0)
    head = stream.read(len(png.SIGNATURE))
    if not head:
        raise UnreadableImage('the file is empty')
    if head == png.SIGNATURE:
        stream = png.verified_png(stream, pixels)
    stream.seek(0)
    with _pillow():
        try:
            image = Image.open(stream, formats=FORMATS)
        except UnidentifiedImageError as error:
            raise _unknown(stream) from error
        # only EXIF counts, but Pillow would also read an orientation from these texts
        for name in ('xmp', 'XML:com.adobe.xmp'):
            image.info.pop(name, None)
        tile = (image.tag_v2.get(tag, 0) for tag in (TILE_WIDTH, TILE_HEIGHT)) if image.format == 'TIFF' else (0, 0)
        sides = [image.size, tuple(tile)]
    for width, height in sides:
        if max_pixels is not None and width * height > max_pixels:
            raise UnreadableImage(
                f'{width} x {height} pixels, more than the limit of {max_pixels}',
                remedy or 'split it into smaller images',
            )
    if 0 in image.size:
        raise UnreadableImage('it has no pixels')
    return image


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 if it is missing or damaged."""
    if image.format == 'TIFF' or not image.info.get('exif'):  # Pillow applies the orientation of TIFF files itself
        return 1
    exif = Image.Exif()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            exif.load(image.info['exif'])
        orientation = exif.get(ORIENTATION)
    except Exception:  # damaged EXIF may raise anything, and the pixels are intact
        return 1
    return orientation if orientation in range(1, 9) else 1


def _deep_colours(image: Image.Image) -> np.ndarray | None:
    """16-bit colours, uint16 [H, W, C], which Pillow would reduce to 8 bits; None for 8-bit files."""
    image.fp.seek(0)
    data = image.fp.read()
    try:
        colours = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:  # the caller reads the file with Pillow, which explains the error
        return None
    if colours is None or colours.dtype != np.uint16:
        image.fp.seek(0)
        return None
    if image.format == 'PNG' and data[PNG_DEPTH + 1] == png.GREY_AND_OPACITY:
        return colours[..., [0, 3]]
    return colours[..., [2, 1, 0, 3][: colours.shape[2]]]


def _grey_step(image: Image.Image) -> int:
    """The factor by which Pillow scales 2-bit and 4-bit grey; 1 for other images."""
    arguments = image.tile[0][3] if image.mode == 'L' and image.tile else ''
    raw_mode = arguments if isinstance(arguments, str) else next(iter(arguments or ()), '')
    return {'L;2': 85, 'L;4': 17}.get(str(raw_mode)[:3], 1)


def _unknown(stream: BinaryIO) -> UnreadableImage:
    """The error for a file that Pillow does not recognise."""
    try:
        stream.seek(0)
        tags = TiffImagePlugin.ImageFileDirectory_v2(stream.read(8))
        stream.seek(tags.next)
        tags.load(stream)
        channels, bits = tags[SAMPLES], tags[BITS][0]
    except Exception:  # not a TIFF file, or a damaged one
        return UnreadableImage(f'it is damaged, or not in one of the formats {", ".join(FORMATS)}')
    return UnreadableImage(
        f'a TIFF file of {channels} channels of {bits} bits, in a layout that is not supported',
        f'save it with 1, 3 or 4 channels of 8 bits, or segment it with model.in_channels={channels}',
    )


@contextmanager
def _pillow() -> Iterator[None]:
    """Converts Pillow's errors to UnreadableImage. Disables its limit of pixels and its warnings."""
    with _no_limit, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            yield
        except UnreadableImage:
            raise
        except MemoryError as error:
            raise UnreadableImage('there is not enough memory for it', 'free memory, or make it smaller') from error
        except Exception as error:  # a damaged file may raise anything
            if isinstance(error, OSError) and error.errno is not None:  # an error of the disk, not of the content
                raise
            raise UnreadableImage(str(error) or type(error).__name__) from error


class _NoLimit:
    """Disables Pillow's limit of pixels for all threads, and restores it when the last thread leaves the block."""

    def __init__(self) -> None:
        self._lock, self._inside, self._limit = threading.Lock(), 0, None

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self._inside += 1

    def __exit__(self, *exception) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                Image.MAX_IMAGE_PIXELS = self._limit


_no_limit = _NoLimit()
