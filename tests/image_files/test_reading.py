"""What holds for image files of every kind; for the pixels see tests/mmseg_ext/datasets/test_one_reader.py."""

import io
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.picture_files import COLOR, KINDS, chunk, encoded, png
from tests.places import ROOT
from tokenlabel.image_files.reading import image_size, open_image, read_pixels
from tokenlabel.image_files.unreadable import UnreadableImage

PHOTO = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 50, 3), np.uint8))
FILES = {kind: encoded(PHOTO, kind) for kind in ('JPEG', 'PNG', 'TIFF', 'BMP', 'GIF', 'WEBP', 'PPM', 'JPEG2000')} | {
    'progressive JPEG': encoded(PHOTO, 'JPEG', progressive=True),
    'compressed TIFF': encoded(PHOTO, 'TIFF', compression='tiff_lzw'),
}


def test_only_the_reader_opens_images():
    """Anything else would see other pixels, or start Ghostscript for a file of another kind."""
    ways = re.compile(r'Image\.open\(|\bimread\(|\bimfrombytes\(|\bimdecode\(')
    places = [path for folder in ('tokenlabel', 'mmseg_ext', 'tools') for path in (ROOT / folder).rglob('*.py')]
    assert [path.name for path in places if ways.search(path.read_text())] == ['reading.py']


@pytest.mark.parametrize('kind', FILES)
@settings(max_examples=12)
@given(share=st.floats(0, 1))
def test_a_file_that_is_cut_off_is_refused_or_whole(kind, share):
    data = FILES[kind]
    try:
        pixels = read_pixels(io.BytesIO(data[: int(share * len(data))]))
    except UnreadableImage:
        return
    np.testing.assert_array_equal(pixels, read_pixels(io.BytesIO(data)))


@pytest.mark.parametrize('kind', FILES)
@settings(max_examples=12)
@given(st.data())
def test_damage_ends_in_no_other_error(kind, data):
    damaged = bytearray(FILES[kind])
    for place in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=4)):
        damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    for read in (read_pixels, image_size):
        try:
            read(io.BytesIO(bytes(damaged)))
        except UnreadableImage as error:
            assert '\n' not in str(error)


@settings(max_examples=40)
@given(st.data())
def test_every_flipped_bit_of_a_png_is_found(data):
    place = data.draw(st.integers(8, len(FILES['PNG']) - 1))
    damaged = bytearray(FILES['PNG'])
    damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(UnreadableImage):
        read_pixels(io.BytesIO(bytes(damaged)))


def test_what_follows_a_png_is_left_alone():
    np.testing.assert_array_equal(read_pixels(io.BytesIO(FILES['PNG'] + b'more')), PHOTO)


def test_texts_and_profiles_of_a_png_are_not_unpacked(monkeypatch):
    monkeypatch.setattr('PIL.PngImagePlugin._safe_zlib_decompress', lambda data: pytest.fail('unpacked'))
    compressed = b'name\0\0' + b'x\x9c' + bytes(50)
    rows = b''.join(b'\0' + row.tobytes() for row in COLOR)
    data = png((9, 6), 8, 2, rows, chunk(b'iCCP', compressed), chunk(b'zTXt', compressed))
    np.testing.assert_array_equal(read_pixels(io.BytesIO(data)), COLOR)


@pytest.mark.parametrize('kind', FILES)
def test_an_image_of_more_pixels_than_allowed_is_not_decoded(kind, monkeypatch):
    for read in (read_pixels, open_image):
        with pytest.raises(UnreadableImage, match='50 x 40 pixels, more than the limit of 1999'):
            read(io.BytesIO(FILES[kind]), 1999)
    np.testing.assert_array_equal(read_pixels(io.BytesIO(FILES[kind]), 2000), read_pixels(io.BytesIO(FILES[kind])))


def test_the_size_of_an_image_needs_none_of_its_pixels():
    data = KINDS['PNG turned'][0]
    pixels_at = data.index(b'IDAT') + 4
    assert image_size(io.BytesIO(data[:pixels_at] + b'?' + data[pixels_at + 1 :])) == (6, 9)


def test_pillow_s_own_limit_of_pixels_does_not_count_and_stays(monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 10)
    np.testing.assert_array_equal(read_pixels(io.BytesIO(FILES['PNG'])), PHOTO)
    assert Image.MAX_IMAGE_PIXELS == 10


@pytest.mark.parametrize('exif', [b'Exif\0\0', b'Exif\0\0II*\0\xff\xff\xff\xff', b'Exif\0\0no orientation'])
def test_damaged_exif_turns_nothing(exif):
    data = encoded(PHOTO, 'JPEG', exif=exif)
    np.testing.assert_array_equal(read_pixels(io.BytesIO(data)), Image.open(io.BytesIO(data)))
    assert image_size(io.BytesIO(data)) == (50, 40)


def test_a_jpeg_keeps_the_way_to_decode_it_at_a_fraction_of_its_size():
    image = open_image(io.BytesIO(FILES['JPEG']))
    assert image.draft(None, (25, 20)) and image.size == (25, 20)
