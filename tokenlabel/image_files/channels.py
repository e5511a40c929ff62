"""Reading images of any number of channels and bits unchanged: satellite bands, near infrared, X-ray.

The reader of `tokenlabel.image_files.reading` makes upright 8-bit RGB of everything. This one keeps the numbers of a
file: no conversion to RGB, no scaling, no loss of 16 bits. What is read:

- TIFF of any number of samples, planes or pages and any bits, by tifffile; each plane is a channel.
- `.npy` of bool, integers or floats, [H, W], [H, W, C] or [C, H, W].
- PNG, PPM and JPEG 2000 of 8 or 16 bits, and all other kinds that the reader of RGB knows. Palettes become colours.

Orientation (EXIF, or the TIFF tag) is applied.
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
INSTALL = 'pip install tifffile imagecodecs'  # the extra `tiff`
STORED_SUFFIXES = ('.npy',)  # suffixes in addition to those of RGB images
logging.getLogger('tifffile').addHandler(logging.NullHandler())  # our errors contain what it logs about bad files


def read_channels(stream: BinaryIO, in_channels: int, max_pixels: int | None = MAX_PIXELS) -> np.ndarray:
    """The stored values of an image file, float32 [H, W, in_channels], in stored order and range.

    Args:
        stream: the file, seekable.
        in_channels: how many channels it must have.
        max_pixels: of larger ones not a pixel is decoded; None for no limit.

    Raises:
        UnreadableImage: the file is empty, damaged, of another kind or too large, has another number of channels, or
            holds NaN or infinite values.
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

    The channels are the last axis where that has `in_channels` entries, and else the first.

    Args:
        array: of bool, integers or floats.
        in_channels: how many channels it must have.
        first: whether its channels may be the first axis.

    Raises:
        UnreadableImage: another number of channels, axes or type, or NaN or infinite values.
    """
    _refuse_shape(array.shape)
    shape = f' (shape {list(array.shape)})' if first else ''
    if array.ndim == 2:
        array = array[..., None]
    elif first and _channels_first(array.shape, in_channels):
        array = np.moveaxis(array, 0, 2)
    if (found := array.shape[2]) != in_channels:
        raise UnreadableImage(
            f'{found} channel{"s" * (found > 1)}{shape}, and model.in_channels is {in_channels}',
            f'set model.in_channels={found} if all images have as many, or save this one with {in_channels}',
        )
    if array.dtype.kind not in 'buif':
        raise UnreadableImage(f'numbers of type {array.dtype}', 'save bool, integers or floats')
    with np.errstate(over='ignore'):  # values beyond float32 become infinite, which is an error below
        channels = np.ascontiguousarray(array, np.float32)
    if not (finite := np.isfinite(channels)).all():
        raise UnreadableImage(
            f'NaN or infinite values in {int((~finite).any(2).sum())} of its pixels',
            'put a number in their place, such as by numpy.nan_to_num',
        )
    return channels


def channels_size(stream: BinaryIO, in_channels: int) -> tuple[int, int]:
    """Width and height in pixels of the upright image, from the file's header alone.

    Args:
        stream: the file, seekable.
        in_channels: tells [C, H, W] of an `.npy` file from [H, W, C], see `channels_of_array`.

    Raises:
        UnreadableImage: the file is empty, or no header of a known kind is in it.
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
    """Whether an array is [C, H, W]: its first axis alone has `in_channels` entries."""
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
        raise UnreadableImage('TIFF files need tifffile to be read as they are stored', f'run {INSTALL}') from error
    with _library_errors('the TIFF file'), tifffile.TiffFile(stream, name='image') as file:
        yield file


def _axes(series: 'tifffile.TiffPageSeries') -> dict[str, int]:
    """Length of each axis by tifffile's letter, slowest axis first."""
    axes = dict(zip(series.axes, series.shape, strict=True))
    if not {'Y', 'X'} <= axes.keys():
        raise UnreadableImage(f'the TIFF file has the axes {series.axes}, which make no image')
    return axes


def _tiff_orientation(file: 'tifffile.TiffFile') -> int:
    tag = file.pages[0].tags.get(ORIENTATION)
    return tag.value if tag is not None and tag.value in range(1, 9) else 1


def _refuse_large(pixels: int, max_pixels: int | None) -> None:
    if max_pixels is not None and pixels > max_pixels:
        raise UnreadableImage(f'{pixels} pixels, more than the {max_pixels} that fit', 'split it into smaller images')


@contextmanager
def _library_errors(what: str) -> Iterator[None]:
    """Converts what a library raises about a file's content to UnreadableImage."""
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
        raise UnreadableImage(f'{what} is damaged or of a kind that is not read: {reason}') from error
