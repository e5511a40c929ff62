"""Pictures to look at, of images of any channels and range."""

import numpy as np
import pytest

from tokenlabel.pictures.stretched import stretched

RNG = np.random.default_rng(0)


@pytest.mark.parametrize('channels', [1, 2, 3, 4, 13])
def test_the_first_three_channels_or_one_in_grey_are_shown(channels):
    image = RNG.random((40, 50, channels), np.float32) * 60000
    shown = stretched(image)
    assert shown.shape == (40, 50, 3) and shown.dtype == np.uint8
    assert shown.min() == 0 and shown.max() == 255
    for number in range(3):
        order = np.argsort(image[..., number if channels >= 3 else 0], None)
        assert (np.diff(shown[..., number].ravel()[order].astype(int)) >= 0).all()


def test_a_few_extreme_pixels_do_not_darken_the_others():
    image = np.linspace(1000, 2000, 10000, dtype=np.float32).reshape(100, 100, 1)
    image[0, 0] = 65535
    assert stretched(image).mean() == pytest.approx(127.5, abs=2)


def test_an_even_image_is_dark():
    assert not stretched(np.full((4, 5, 3), 7.0)).any()
