"""Images of any channels and bits are read as they are stored, or refused in a few words."""

import builtins
import importlib.util
import io

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.picture_files import DEEP, by_opencv, chunk, encoded, png, turned
from tokenlabel.image_files.channels import channels_of_array, channels_size, read_channels
from tokenlabel.image_files.reading import read_pixels, stored_bits
from tokenlabel.image_files.unreadable import UnreadableImage

RNG = np.random.default_rng(0)
BANDS = RNG.integers(0, 65536, (6, 9, 13)).astype(np.uint16)
COLOURS = BANDS[..., :4]
FEW = RNG.integers(0, 256, (6, 9, 4), np.uint8)


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def tiff(array: np.ndarray, **options) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **{'photometric': 'minisblack', **options})
    return stream.getvalue()


def first(array: np.ndarray) -> np.ndarray:
    return np.moveaxis(array, 2, 0)


def grey_and_opacity(numbers: np.ndarray) -> bytes:
    rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in numbers)
    return png((9, 6), 16, 4, rows)


def ppm(numbers: np.ndarray) -> bytes:
    return b'P6 9 6 65535\n' + numbers.astype('>u2').tobytes()


PALETTE = Image.fromarray(FEW[..., :3]).quantize(16)
FILES = {
    '.npy of uint16': (npy(BANDS), BANDS),
    '.npy of channels first': (npy(first(BANDS)), BANDS),
    '.npy in the order of Fortran': (npy(np.asfortranarray(BANDS)), BANDS),
    '.npy of float64': (npy(BANDS / 7), (BANDS / 7).astype(np.float32)),
    '.npy of int16 below 0': (npy(-FEW.astype(np.int16)), -FEW.astype(np.int16)),
    '.npy of bool': (npy(FEW > 9), FEW > 9),
    '.npy of one channel': (npy(DEEP), DEEP[..., None]),
    'TIFF of planes': (tiff(first(BANDS), planarconfig='separate'), BANDS),
    'TIFF of samples': (tiff(BANDS, planarconfig='contig'), BANDS),
    'TIFF of pages': (tiff(first(BANDS)), BANDS),
    'TIFF of pages, deflated': (tiff(first(BANDS), compression='zlib'), BANDS),
    'TIFF of tiles': (tiff(BANDS, planarconfig='contig', tile=(16, 16)), BANDS),
    'TIFF beyond 4 GiB': (tiff(BANDS, planarconfig='contig', bigtiff=True), BANDS),
    'TIFF big end first': (tiff(BANDS, planarconfig='contig', byteorder='>'), BANDS),
    'TIFF of float32': (tiff(BANDS.astype(np.float32) / 9, planarconfig='contig'), BANDS.astype(np.float32) / 9),
    'TIFF of 16-bit grey': (tiff(DEEP), DEEP[..., None]),
    'TIFF of 16-bit colour': (tiff(COLOURS[..., :3], photometric='rgb'), COLOURS[..., :3]),
    'TIFF of 16-bit colour and infrared': (tiff(COLOURS, photometric='rgb'), COLOURS),
    'TIFF turned': (
        tiff(BANDS, planarconfig='contig', extratags=[(274, 'H', 1, 6, True)]),
        np.rot90(BANDS, -1),
    ),
    'PNG of 16-bit grey': (encoded(Image.fromarray(DEEP), 'PNG'), DEEP[..., None]),
    'PNG of 16-bit colour': (by_opencv('.png', COLOURS[..., 2::-1]), COLOURS[..., :3]),
    'PNG of 16-bit colour and opacity': (by_opencv('.png', COLOURS[..., [2, 1, 0, 3]]), COLOURS),
    'PNG of 16-bit grey and opacity': (grey_and_opacity(BANDS[..., :2]), BANDS[..., :2]),
    'PNG of 8-bit grey and opacity': (encoded(Image.fromarray(FEW[..., :2], 'LA'), 'PNG'), FEW[..., :2]),
    'PNG of 8-bit colour and opacity': (encoded(Image.fromarray(FEW), 'PNG'), FEW),
    'PNG of 8-bit grey': (encoded(Image.fromarray(FEW[..., 0]), 'PNG'), FEW[..., :1]),
    'PNG of a palette': (encoded(PALETTE, 'PNG'), np.asarray(PALETTE.convert('RGB'))),
    'PNG turned': (encoded(Image.fromarray(DEEP), 'PNG', exif=turned(6)), np.rot90(DEEP, -1)[..., None]),
    'PPM of 16-bit colour': (ppm(COLOURS[..., :3]), COLOURS[..., :3]),
    'BMP': (encoded(Image.fromarray(FEW[..., :3]), 'BMP'), FEW[..., :3]),
}


@pytest.mark.parametrize('kind', FILES)
def test_the_numbers_of_a_file_are_kept(kind):
    data, expected = FILES[kind]
    channels = read_channels(io.BytesIO(data), expected.shape[2])
    assert channels.dtype == np.float32 and channels.flags['C_CONTIGUOUS']
    np.testing.assert_array_equal(channels, expected.astype(np.float32))
    assert channels_size(io.BytesIO(data), expected.shape[2]) == expected.shape[1::-1]


def test_a_jpeg_has_the_pixels_that_it_has_for_everyone_else():
    data = encoded(Image.fromarray(FEW[..., :3]), 'JPEG', exif=turned(6))
    np.testing.assert_array_equal(read_channels(io.BytesIO(data), 3), read_pixels(io.BytesIO(data)))


@pytest.mark.parametrize('kind', FILES)
def test_another_number_of_channels_is_refused(kind):
    data, expected = FILES[kind]
    channels = expected.shape[2]
    with pytest.raises(
        UnreadableImage, match=rf'\d channels?( \(.*\))?, but model.in_channels is {channels + 20}'
    ) as error:
        read_channels(io.BytesIO(data), channels + 20)
    assert 'set model.in_channels=' in error.value.remedy


def test_channels_are_the_last_axis_where_both_fit():
    array = RNG.random((4, 7, 4))
    np.testing.assert_array_equal(channels_of_array(array, 4), array.astype(np.float32))


def test_rows_of_one_channel_are_no_channels():
    with pytest.raises(UnreadableImage, match=r'1 channel \(shape \[13, 7\]\), but model\.in_channels is 13'):
        channels_of_array(np.zeros((13, 7)), 13)


def test_a_picture_has_its_channels_last():
    data = tiff(np.zeros((4, 7, 5), np.uint16), planarconfig='contig')  # 4 rows are no 4 channels
    with pytest.raises(UnreadableImage, match=r'5 channels, but model\.in_channels is 4'):
        read_channels(io.BytesIO(data), 4)


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf, 1e300])
def test_what_is_no_finite_number_is_refused(value):
    array = np.zeros((6, 9, 2))
    array[0, 0, 0] = array[2, 3] = value
    for data in (npy(array), tiff(array, planarconfig='contig')):
        with pytest.raises(UnreadableImage, match='NaN or infinite values in 2 of its pixels'):
            read_channels(io.BytesIO(data), 2)


@pytest.mark.parametrize(
    ('array', 'message'),
    [
        (np.zeros((2, 3), np.complex64), 'numbers of type complex64'),
        (np.zeros((2, 3), 'U1'), 'numbers of type <U1'),
        (np.zeros(5), r'the shape \[5\]'),
        (np.zeros((1, 2, 3, 4)), r'the shape \[1, 2, 3, 4\]'),
        (np.zeros((0, 3)), r'the shape \[0, 3\]'),
    ],
)
def test_what_is_no_image_is_refused(array, message):
    with pytest.raises(UnreadableImage, match=message):
        read_channels(io.BytesIO(npy(array)), 1)
    with pytest.raises(UnreadableImage, match=message):
        channels_of_array(array, 1)


def test_objects_are_not_unpickled():
    stream = io.BytesIO()
    np.save(stream, np.array([[print, None]], object), allow_pickle=True)
    with pytest.raises(UnreadableImage, match='Object arrays cannot be loaded'):
        read_channels(stream, 1)


@pytest.mark.parametrize('kind', FILES)
@settings(max_examples=12)
@given(share=st.floats(0, 1))
def test_a_file_that_is_cut_off_is_refused_or_whole(kind, share):
    data, expected = FILES[kind]
    try:
        channels = read_channels(io.BytesIO(data[: int(share * len(data))]), expected.shape[2])
    except UnreadableImage:
        return
    np.testing.assert_array_equal(channels, expected.astype(np.float32))


@pytest.mark.parametrize('kind', FILES)
@settings(max_examples=25)
@given(st.data())
def test_damage_ends_in_no_other_error(kind, data):
    damaged = bytearray(FILES[kind][0])
    for place in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=4)):
        damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    for read in (read_channels, channels_size):
        try:
            read(io.BytesIO(bytes(damaged)), FILES[kind][1].shape[2])
        except UnreadableImage as error:
            assert '\n' not in str(error)


@pytest.mark.parametrize('kind', FILES)
def test_an_image_of_more_pixels_than_allowed_is_not_decoded(kind):
    data, expected = FILES[kind]
    with pytest.raises(UnreadableImage, match='more than the limit of 53'):
        read_channels(io.BytesIO(data), expected.shape[2], 53)
    read_channels(io.BytesIO(data), expected.shape[2], 54)


def test_without_tifffile_a_tiff_names_the_extra(monkeypatch):
    load = builtins.__import__

    def without(name, *args, **kwargs):
        if name == 'tifffile':
            raise ImportError(name)
        return load(name, *args, **kwargs)

    monkeypatch.setattr(builtins, '__import__', without)
    with pytest.raises(UnreadableImage) as error:
        read_channels(io.BytesIO(FILES['TIFF of planes'][0]), 13)
    assert error.value.remedy == 'run pip install tifffile imagecodecs'


def test_a_tiff_compressed_by_lzw_is_read_where_imagecodecs_is_there_and_else_names_it():
    data = encoded(Image.fromarray(DEEP), 'TIFF', compression='tiff_lzw')
    if importlib.util.find_spec('imagecodecs'):
        np.testing.assert_array_equal(read_channels(io.BytesIO(data), 1)[..., 0], DEEP)
        return
    with pytest.raises(UnreadableImage, match='the TIFF file is compressed') as error:
        read_channels(io.BytesIO(data), 1)
    assert error.value.remedy == 'run pip install tifffile imagecodecs'


@pytest.mark.parametrize(
    ('kind', 'bits'),
    [
        ('PNG of 16-bit colour', 16),
        ('PNG of 8-bit grey', 8),
        ('TIFF of 16-bit grey', 16),
        ('BMP', 8),
        ('PNG turned', 16),
    ],
)
def test_bits_are_in_the_header(kind, bits):
    assert stored_bits(io.BytesIO(FILES[kind][0])) == bits


def test_a_transparent_colour_of_16_bits_is_a_fourth_channel():
    rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in COLOURS[..., :3])
    data = png((9, 6), 16, 2, rows, chunk(b'tRNS', COLOURS[0, 0, :3].astype('>u2').tobytes()))
    channels = read_channels(io.BytesIO(data), 4)
    np.testing.assert_array_equal(channels[..., :3], COLOURS[..., :3])
