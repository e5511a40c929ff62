"""Images of every kind become the pixels that a person sees."""

import cv2
import numpy as np
import pytest
from PIL import Image

from mmseg_ext.inference.image_pixels import image_pixels
from tokenlabel.errors import UserError

RNG = np.random.default_rng(0)
COLOR = RNG.integers(0, 256, (6, 9, 3), np.uint8)
GREY = RNG.integers(0, 256, (6, 9), np.uint8)
DEEP = RNG.integers(0, 65536, (6, 9)).astype(np.uint16)


def in_color(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, 2)


@pytest.mark.parametrize(
    ('array', 'expected'),
    [
        (COLOR, COLOR),
        (GREY, in_color(GREY)),
        (GREY[..., None], in_color(GREY)),
        (GREY > 99, in_color(np.where(GREY > 99, 255, 0))),
        (DEEP, in_color(DEEP >> 8)),
        (COLOR.astype(np.int64), COLOR),
        (COLOR.astype(np.float32), COLOR),
        (COLOR.astype(np.float64) / 255, COLOR),
    ],
    ids=['uint8', 'grey', 'one channel', 'bool', 'uint16', 'int64', '0..255 float', '0..1 float'],
)
def test_arrays(array, expected):
    pixels = image_pixels(array)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, expected)


def test_what_is_transparent_lies_on_white():
    opacity = np.array([[0, 255]], np.uint8)
    rgba = np.dstack([np.full((1, 2, 3), 40, np.uint8), opacity])
    expected = [[[255] * 3, [40] * 3]]
    np.testing.assert_array_equal(image_pixels(rgba), expected)
    np.testing.assert_array_equal(image_pixels(Image.fromarray(rgba)), expected)
    np.testing.assert_array_equal(image_pixels(Image.fromarray(rgba).convert('LA')), expected)


def test_a_palette_with_a_transparent_colour(tmp_path):
    picture = Image.fromarray(np.array([[0, 1]], np.uint8), 'P')
    picture.putpalette([9, 9, 9, 70, 80, 90])
    picture.save(tmp_path / 'p.png', transparency=0)
    np.testing.assert_array_equal(image_pixels(tmp_path / 'p.png'), [[[255] * 3, [70, 80, 90]]])


@pytest.mark.parametrize('mode', ['1', 'L', 'P', 'CMYK', 'YCbCr', 'I', 'RGB'])
def test_modes_of_pictures(mode):
    picture = Image.fromarray(GREY).convert(mode)
    if mode == 'I':  # 16 bits in 32
        picture = Image.fromarray(GREY.astype(np.int32) * 257)
    expected = np.array(Image.fromarray(GREY).convert(mode).convert('RGB'))
    np.testing.assert_array_equal(image_pixels(picture), expected if mode != 'I' else in_color(GREY))


@pytest.mark.parametrize('depth', ['grey', 'color'])
def test_files_of_16_bits_are_read_as_opencv_reads_them(tmp_path, depth):
    array = DEEP if depth == 'grey' else RNG.integers(0, 65536, (6, 9, 3)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / 'deep.png'), array)
    np.testing.assert_array_equal(
        image_pixels(tmp_path / 'deep.png'), cv2.imread(str(tmp_path / 'deep.png'))[..., ::-1]
    )


def test_a_jpeg_is_upright_and_has_the_pixels_that_training_saw(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned to the right
    Image.fromarray(COLOR).save(tmp_path / 'turned.jpg', exif=exif)
    pixels = image_pixels(str(tmp_path / 'turned.jpg'))
    assert pixels.shape == (9, 6, 3)
    np.testing.assert_array_equal(pixels, cv2.imread(str(tmp_path / 'turned.jpg'))[..., ::-1])


@pytest.mark.parametrize(
    ('image', 'sentence'),
    [
        ('nowhere.png', r'nowhere\.png cannot be read as an image \(no such file or directory\): check the path'),
        (np.zeros((3, 4, 5), np.uint8), r'has the shape \[3, 4, 5\]: give \[H, W\]'),
        (np.zeros((0, 4, 3), np.uint8), r'has the shape \[0, 4, 3\]'),
        (np.full((2, 2), -1), 'has values from -1 to -1'),
        (np.full((2, 2), 300.0), r'scale them to \[0, 1\] or \[0, 255\]'),
        (np.full((2, 2), np.nan), 'has values from nan'),
        (np.full((2, 2), 1j), 'numbers of type complex128'),
        ([[1, 2]], 'this is a list'),
    ],
)
def test_what_is_no_image_is_said_in_a_sentence(image, sentence):
    with pytest.raises(UserError, match=sentence):
        image_pixels(image)


@pytest.mark.parametrize('part', [0.0, 0.1, 0.6])
def test_damaged_files_are_named(tmp_path, part):
    Image.fromarray(RNG.integers(0, 256, (90, 90, 3), np.uint8)).save(tmp_path / 'whole.jpg')
    data = (tmp_path / 'whole.jpg').read_bytes()
    (tmp_path / 'part.jpg').write_bytes(data[: int(part * len(data))])
    with pytest.raises(UserError, match=r'part\.jpg .*: replace or remove it'):
        image_pixels(tmp_path / 'part.jpg')


def test_pictures_may_be_huge(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 10)
    Image.fromarray(COLOR).save(tmp_path / 'huge.png')
    np.testing.assert_array_equal(image_pixels(tmp_path / 'huge.png'), COLOR)
    assert Image.MAX_IMAGE_PIXELS == 10
