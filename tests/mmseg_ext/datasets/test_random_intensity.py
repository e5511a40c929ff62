"""Brightness and contrast at random, whatever the range."""

import numpy as np
import pytest

from mmseg_ext.datasets import RandomIntensity

IMAGE = np.random.default_rng(0).integers(1000, 60000, (20, 30, 13)).astype(np.float32)


@pytest.mark.parametrize('image', [IMAGE, IMAGE[..., 0]], ids=['13 channels', 'one'])
def test_mean_and_spread_change_within_their_ranges_alike_in_all_channels(image):
    np.random.seed(0)
    changed = RandomIntensity(brightness=0.5, contrast=0.5, prob=1.0).transform(dict(img=image))['img']
    assert changed.dtype == np.float32 and changed.shape == image.shape
    factor = changed.std((0, 1)) / image.std((0, 1))
    shift = (changed.mean((0, 1)) - image.mean((0, 1))) / image.std((0, 1))
    assert np.ptp(factor) < 1e-3 and np.ptp(shift) < 1e-3
    assert 0.5 <= np.mean(factor) <= 1.5 and abs(np.mean(shift)) <= 0.5 and abs(np.mean(factor) - 1) > 1e-3


def test_it_may_change_nothing():
    changed = RandomIntensity(prob=0.0).transform(dict(img=IMAGE))['img']
    np.testing.assert_array_equal(changed, IMAGE)
    assert repr(RandomIntensity()) == 'RandomIntensity(brightness=0.5, contrast=0.5, prob=0.5)'
