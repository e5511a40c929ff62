"""Numbers of any type become 8 bits: order kept, 0 to 0, the greatest to 255."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.picture_files import on_white
from tokenlabel.image_files.eight_bits import BAND, rgb_of_array, rgb_of_picture
from tokenlabel.image_files.unreadable import UnreadableImage

INTEGERS = ['uint8', 'uint16', 'uint32', 'int8', 'int16', 'int32']


@pytest.mark.parametrize('kind', INTEGERS)
@settings(max_examples=20)
@given(st.data())
def test_a_ramp_of_integers_keeps_its_order_from_0_to_255(kind, data):
    greatest = int(np.iinfo(kind).max)
    values = data.draw(st.lists(st.integers(0, greatest), max_size=30))
    ramp = np.array([[0, *sorted(values), greatest]]).astype(kind)
    pixels = rgb_of_array(ramp)[0, :, 0].astype(int)
    assert pixels[0] == 0 and pixels[-1] == 255
    assert (np.diff(pixels) >= 0).all()


@pytest.mark.parametrize('kind', ['float16', 'float32', 'float64'])
@pytest.mark.parametrize('greatest', [1, 255])
def test_a_ramp_of_floats_keeps_its_order_from_0_to_255(kind, greatest):
    pixels = rgb_of_array(np.linspace(0, greatest, 500).astype(kind)[None])[0, :, 0].astype(int)
    assert pixels[0] == 0 and pixels[-1] == 255
    assert (np.diff(pixels) >= 0).all()


@pytest.mark.parametrize(('greatest', 'expected'), [(200, 200), (256, 1), (65535, 255), (65536, 0), (2**31 - 1, 127)])
def test_wide_integers_count_as_the_fewest_bits_that_hold_the_image(greatest, expected):
    assert rgb_of_array(np.array([[0, greatest]], np.uint32)).max() == expected


@pytest.mark.parametrize('value', [-1, 2**32])
def test_numbers_that_no_rule_is_for_are_refused(value):
    with pytest.raises(UnreadableImage, match=f'values from .* to {max(value, 0)}' if value > 0 else 'values from -1'):
        rgb_of_array(np.array([[0, value]]))


@pytest.mark.parametrize('value', [-0.1, 255.1, np.nan, np.inf, -np.inf])
def test_floats_that_no_rule_is_for_are_refused(value):
    with pytest.raises(UnreadableImage, match='values from'):
        rgb_of_array(np.array([[0, value]], np.float32))


def test_opacity_is_laid_on_white_as_exact_arithmetic_does():
    colors, opacities = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    rgba = np.dstack([colors, colors, colors, opacities])
    np.testing.assert_array_equal(rgb_of_array(rgba), on_white(rgba[..., :3], opacities))


@pytest.mark.parametrize(
    'mode', ['1', 'L', 'LA', 'La', 'P', 'PA', 'RGB', 'RGBA', 'RGBa', 'CMYK', 'YCbCr', 'HSV', 'LAB']
)
def test_pictures_of_every_mode_give_white_for_white(mode):
    white = Image.new('RGBA', (3, 2), (255, 255, 255, 255))
    if mode in ('La', 'RGBa'):
        white = white.convert(mode.upper())
    elif mode in ('HSV', 'LAB', 'CMYK', 'YCbCr'):
        white = white.convert('RGB')
    pixels = rgb_of_picture(white.convert(mode))
    assert pixels.shape == (2, 3, 3) and pixels.dtype == np.uint8
    assert pixels.min() == 255


@pytest.mark.parametrize('mode', ['L', 'RGBA', 'F', 'I;16'])
def test_large_pictures_are_converted_piece_by_piece_to_the_same(mode, monkeypatch):
    numbers = np.random.default_rng(0).integers(0, 256, (50, 7, 4) if mode == 'RGBA' else (50, 7))
    kinds = {'F': np.float32, 'I;16': np.uint16}
    picture = Image.fromarray((numbers * (200 if mode == 'I;16' else 1)).astype(kinds.get(mode, np.uint8)))
    whole = rgb_of_picture(picture)
    assert picture.width * picture.height < BAND
    monkeypatch.setattr('tokenlabel.image_files.eight_bits.BAND', 30)
    np.testing.assert_array_equal(rgb_of_picture(picture), whole)
