"""RandAugment's quick operations against those of Pillow."""

import random

import numpy as np
import pytest
from PIL import Image
from PIL.Image import Resampling
from sklearn.datasets import load_sample_image
from timm.data.auto_augment import sharpness

from tokenlabel.transforms.image import rand_augment
from tokenlabel.transforms.opencv_operations import sharpen, warp
from tokenlabel.transforms.view import View

GEOMETRIC = ['ShearX', 'ShearY', 'Rotate', 'TranslateXRel', 'TranslateYRel']
MATRICES = {
    'shear': [[1, 0.3, 0], [0, 1, 0]],
    'fractional shift': [[1, 0, 7.3], [0, 1, -4.6]],
    'turn': [[0.9, -0.4, 30], [0.4, 0.9, -20]],
}


@pytest.fixture(scope='module')
def photograph() -> Image.Image:
    return Image.fromarray(load_sample_image('china.jpg')).resize((96, 64), Resampling.BICUBIC)


@pytest.mark.parametrize('resample', [Resampling.BILINEAR, Resampling.BICUBIC])
@pytest.mark.parametrize('matrix', MATRICES.values(), ids=MATRICES)
def test_a_warp_is_pillow_s_transform(photograph, matrix, resample):
    ours = warp(np.asarray(photograph), np.array(matrix, dtype=float), resample).astype(int)
    flat = [value for row in matrix for value in row]
    theirs = photograph.transform(photograph.size, Image.Transform.AFFINE, flat, resample)
    inside = Image.new('L', photograph.size, 255).transform(photograph.size, Image.Transform.AFFINE, flat, resample)
    # three pixels from the border of what is seen: there the two fill differently
    seen = (
        -np.lib.stride_tricks.sliding_window_view(np.pad(-np.asarray(inside, dtype=int), 3), (7, 7)).max((2, 3)) == 255
    )
    difference = np.abs(ours - np.asarray(theirs, dtype=int))[seen]
    assert seen.mean() > 0.3
    assert difference.mean() < (1 if resample == Resampling.BILINEAR else 4)


def test_outside_is_the_mean_colour(photograph):
    away = warp(np.asarray(photograph), np.array([[1, 0, 1000], [0, 1, 0]], dtype=float), Resampling.BILINEAR)
    assert (away == (124, 116, 104)).all()


@pytest.mark.parametrize('factor', [0.1, 1.0, 1.9])
def test_sharpening_is_pillow_s_to_a_grey_level(photograph, factor):
    ours = sharpen(np.asarray(photograph), factor).astype(int)
    assert np.abs(ours - np.asarray(sharpness(photograph, factor), dtype=int)).max() <= 1


@pytest.mark.parametrize('name', [*GEOMETRIC, 'SharpnessIncreasing', 'Equalize'])
def test_quick_operations_draw_what_the_others_draw(photograph, name):
    views = []
    for quick in (True, False):
        policy = rand_augment('rand-m9-mstd0.5-inc1-n3', 64, transforms=[name], quick=quick)
        random.seed(3), np.random.seed(3)
        views.append((policy((photograph, View.identity()))[1].matrix, random.random()))
    np.testing.assert_array_equal(views[0][0], views[1][0])
    assert views[0][1] == views[1][1]
