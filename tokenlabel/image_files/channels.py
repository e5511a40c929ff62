"""Reading images of any number of channels and bits unchanged: satellite bands, near infrared, X-ray.

`tokenlabel.image_files.reading` converts all images to 8-bit RGB. This module keeps the values of the file: it does not
convert to RGB, does not scale, and keeps all bits. Supported formats:

- TIFF with any number of samples, planes or pages and any bit depth, read by tifffile; each plane is a channel.
- `.npy` arrays of bool, integers or floats, [H, W], [H, W, C] or [C, H, W].
- PNG, PPM and JPEG 2000 with 8 or 16 bits, and all other formats of the RGB reader. Palette indices become colours.

The orientation (EXIF or TIFF tag) is applied.
"""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from tokenlabel.image_files.reading import MAX_PIXELS, ORIENTATION, image_size, read_all_bits, upright
from tokenlabel.image_files.unreadable import UnreadableImage

if TYPE_CHECKING:
    import tifffile

NPY = b'\x93NUMPY'
TIFFS = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')  # the last two: BigTIFF
INSTALL = 'pip install tifffile imagecodecs'  # the packages of the extra `tiff`
STORED_SUFFIXES = ('.npy',)  # suffixes in addition to those of RGB images
logging.getLogger('tifffile').addHandler(logging.NullHandler())  # UnreadableImage already contains what it logs


def read_channels(stream: BinaryIO, in_channels: int, max_pixels: int | None = MAX_PIXELS) -> np.ndarray:
    """The stored values of an image file, float32 [H, W, in_channels], in stored order and range.

    Args:
        stream: the file, seekable.
        in_channels: required number of channels.
        max_pixels: larger images are refused without decoding them; None for no limit.

    Raises:
        UnreadableImage: the file is empty, damaged, too large or of an unsupported format, has another number of
            channels, or contains NaN or infinite values.
    """
    kind = _kind(stream)
    if kind == 'NPY':
        _refuse_large(math.prod(channels_size(stream, in_channels)), max_pixels)
        return channels_of_array(_npy(stream), in_channels)
    return channels_of_array(
        _tiff(stream, max_pixels) if kind == 'TIFF' else read_all_bits(stream, max_pixels),
        in_channels,
        first=False,
    )


def channels_of_array(array: np.ndarray, in_channels: int, first: bool = True) -> np.ndarray:
    """Converts an array [H, W], [H, W, C] or [C, H, W] to float32 [H, W, in_channels].

    The channel axis is the last one if it has length `in_channels`, else the first.

    Args:
        array: bool, integers or floats.
        in_channels: required number of channels.
        first: whether the channel axis may be the first one.

    Raises:
        UnreadableImage: the array has another number of channels or axes or another dtype, or contains NaN or infinite
            values.
    """
    _refuse_shape(array.shape)
    shape = f' (shape {list(array.shape)})' if first else ''
    if array.ndim == 2:
        array = array[..., None]
    elif first and _channels_first(array.shape, in_channels):
        array = np.moveaxis(array, 0, 2)
    if (found := array.shape[2]) != in_channels:
        raise UnreadableImage(
            f'{found} channel{"s" * (found > 1)}{shape}, but model.in_channels is {in_channels}',
            f'set model.in_channels={found} if all images have this number, or save this one with {in_channels}',
        )
    if array.dtype.kind not in 'buif':
        raise UnreadableImage(f'numbers of type {array.dtype}', 'save bool, integers or floats')
    with np.errstate(over='ignore'):  # values beyond float32 become infinite, which is an error below
        channels = np.ascontiguousarray(array, np.float32)
    if not (finite := np.isfinite(channels)).all():
        raise UnreadableImage(
            f'NaN or infinite values in {int((~finite).any(2).sum())} of its pixels',
            'replace them by numbers, for example with numpy.nan_to_num',
        )
    return channels


def channels_size(stream: BinaryIO, in_channels: int) -> tuple[int, int]:
    """Width and height in pixels of the upright image, from the file's header alone.

    Args:
        stream: the file, seekable.
        in_channels: number of channels, to distinguish [C, H, W] from [H, W, C] in an `.npy` file.

    Raises:
        UnreadableImage: the file is empty, or has no header of a supported format.
    """
    kind = _kind(stream)
    if kind == 'TIFF':
        with _tiff_file(stream) as file:
            height, width = (_axes(file.series[0])[axis] for axis in 'YX')
            return (height, width) if _tiff_orientation(file) in (5, 6, 7, 8) else (width, height)
    if kind == 'NPY':
        shape = _npy_shape(stream)
        height, width = shape[1:] if _channels_first(shape, in_channels) else shape[:2]
        return width, height
    return image_size(stream)


def _kind(stream: BinaryIO) -> str:
    stream.seek(0)
    head = stream.read(len(NPY))
    stream.seek(0)
    return 'NPY' if head == NPY else 'TIFF' if head[:4] in TIFFS else 'picture'


def _npy(stream: BinaryIO) -> np.ndarray:
    stream.seek(0)
    with _library_errors('the .npy file'):
        return np.lib.format.read_array(stream, allow_pickle=False)


def _npy_shape(stream: BinaryIO) -> tuple[int, ...]:
    with _library_errors('the .npy file'):
        version = np.lib.format.read_magic(stream)
        reads = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape = reads[version](stream)[0]
    _refuse_shape(shape)
    return shape


def _refuse_shape(shape: tuple[int, ...]) -> None:
    if len(shape) not in (2, 3) or 0 in shape:
        raise UnreadableImage(f'the shape {list(shape)}', 'save it as [H, W] or [H, W, C]')


def _channels_first(shape: tuple[int, ...], in_channels: int) -> bool:
    """Whether an array is [C, H, W]: its first axis has length `in_channels` and its last axis does not."""
    return len(shape) == 3 and shape[0] == in_channels != shape[2]


def _tiff(stream: BinaryIO, max_pixels: int | None) -> np.ndarray:
    """Channels [H, W, C] from the samples and pages of a TIFF file's first series."""
    with _tiff_file(stream) as file:
        series = file.series[0]
        axes = _axes(series)
        _refuse_large(axes['Y'] * axes['X'], max_pixels)
        numbers = series.asarray().reshape(list(axes.values()))
        numbers = np.moveaxis(numbers, [list(axes).index(axis) for axis in 'YX'], (0, 1))
        return upright(numbers.reshape(axes['Y'], axes['X'], -1), _tiff_orientation(file))


@contextmanager
def _tiff_file(stream: BinaryIO) -> Iterator['tifffile.TiffFile']:
    """Opens a file with tifffile and converts its errors to UnreadableImage."""
    try:
        import tifffile  # an optional dependency
    except ImportError as error:
        raise UnreadableImage('tifffile, which reads TIFF files unchanged, is missing', f'run {INSTALL}') from error
    with _library_errors('the TIFF file'), tifffile.TiffFile(stream, name='image') as file:
        yield file


def _axes(series: 'tifffile.TiffPageSeries') -> dict[str, int]:
    """Length of each axis by tifffile's letter for it, slowest axis first."""
    axes = dict(zip(series.axes, series.shape, strict=True))
    if not {'Y', 'X'} <= axes.keys():
        raise UnreadableImage(f'the TIFF file has axes {series.axes} and therefore no image')
    return axes


def _tiff_orientation(file: 'tifffile.TiffFile') -> int:
    tag = file.pages[0].tags.get(ORIENTATION)
    return tag.value if tag is not None and tag.value in range(1, 9) else 1


def _refuse_large(pixels: int, max_pixels: int | None) -> None:
    if max_pixels is not None and pixels > max_pixels:
        raise UnreadableImage(f'{pixels} pixels, more than the limit of {max_pixels}', 'split it into smaller images')


@contextmanager
def _library_errors(what: str) -> Iterator[None]:
    """Converts exceptions of a library about a file's content to UnreadableImage."""
    try:
        yield
    except UnreadableImage:
        raise
    except Exception as error:  # a damaged file may raise anything
        if isinstance(error, OSError) and error.errno is not None:  # an error of the disk, not of the content
            raise
        reason = str(error).partition('\n')[0] or type(error).__name__
        if 'imagecodecs' in reason:  # needed for most compressed files
            raise UnreadableImage(f'{what} is compressed', f'run {INSTALL}') from error
        raise UnreadableImage(f'{what} is damaged or not supported: {reason}') from error
