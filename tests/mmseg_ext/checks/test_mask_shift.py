"""Masks that are shifted against their images are found, and others are left alone."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmseg_ext.checks.data_report import data_report
from mmseg_ext.checks.mask_shift import FEWEST_IMAGES, REACH, Shift, edge_sums, shift_of
from mmseg_ext.datasets.load_label_map import read_stored
from mmseg_ext.datasets.read_image import read_image
from tests.mmseg_ext.checks.test_data_report import config

# A folder with `camvid/images` and `camvid/masks`, as packaged for SegNet.
DATA = os.environ.get('TOKENLABEL_TEST_DATA')


def pair(seed: int, channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Rectangles of several brightnesses under noise, and a mask of which rectangle each pixel belongs to."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((120, 160), np.uint8)
    for label in range(1, 5):
        top, left = rng.integers(0, 80), rng.integers(0, 110)
        mask[top : top + rng.integers(20, 60), left : left + rng.integers(20, 70)] = label
    levels = rng.integers(0, 40000, (5, channels))
    return levels[mask] + rng.normal(0, 3000, (*mask.shape, channels)), mask


def moved(mask: np.ndarray, down: int, right: int) -> np.ndarray:
    return np.roll(mask, (down, right), (0, 1))


def write_picture(path: Path, numbers: np.ndarray) -> None:
    Image.fromarray(numbers.clip(0, 255).astype(np.uint8)).save(path)


def shift(pairs) -> Shift | None:
    sums = [edge_sums(image, mask) for image, mask in pairs]
    return shift_of([one for one in sums if one is not None])


@pytest.mark.parametrize(('down', 'right'), [(0, 6), (6, 0), (-3, 4), (10, -12), (0, 2), (-15, 15)])
@pytest.mark.parametrize('channels', [1, 3])
def test_a_shift_of_all_masks_is_found(down, right, channels):
    found = shift((image, moved(mask, down, right)) for image, mask in (pair(seed, channels) for seed in range(12)))
    assert (found.down, found.right) == (-down, -right) and found.agreeing == found.num_images == 12


def test_masks_that_fit_are_left_alone():
    assert shift(pair(seed) for seed in range(12)) is None


def test_one_pixel_is_a_matter_of_how_boundaries_are_drawn():
    assert shift((image, moved(mask, 1, 1)) for image, mask in (pair(seed) for seed in range(12))) is None


def test_masks_of_other_images_and_images_of_noise_say_nothing():
    rng = np.random.default_rng(0)
    assert shift((pair(seed)[0], pair(seed + 50)[1]) for seed in range(30)) is None
    assert shift((rng.normal(size=(120, 160, 3)), pair(seed)[1]) for seed in range(30)) is None


def test_shifts_that_differ_from_image_to_image_say_nothing():
    rng = np.random.default_rng(0)
    assert shift((image, moved(mask, *rng.integers(-14, 15, 2))) for image, mask in map(pair, range(30))) is None


def test_few_images_say_nothing():
    pairs = [(image, moved(mask, 0, 6)) for image, mask in map(pair, range(FEWEST_IMAGES - 1))]
    assert shift(pairs) is None and shift([*pairs, pairs[0]]) is not None


def test_a_shift_is_said_in_words():
    assert str(Shift(-6, 0, 9, 9)) == '6 pixels left' and str(Shift(3, -4, 9, 9)) == '3 pixels right and 4 pixels up'


def test_small_images_and_masks_of_one_class_are_passed_over():
    image, mask = pair(0)
    assert edge_sums(image[: 4 * REACH - 1], mask[: 4 * REACH - 1]) is None
    assert edge_sums(image, np.zeros_like(mask)) is None
    assert edge_sums(image, np.where(mask == 0, 255, 7).astype(np.uint8)) is None  # what is ignored has no boundary


def test_the_report_says_where_masks_have_to_go(tmp_path):
    for split in ('train', 'val'):
        for kind in ('images', 'masks'):
            (tmp_path / kind / split).mkdir(parents=True)
        for seed in range(10):
            image, mask = pair(seed + 100 * (split == 'val'))
            write_picture(tmp_path / f'images/{split}/{seed}.png', image / 256)
            write_picture(tmp_path / f'masks/{split}/{seed}.png', moved(mask, 0, 6) if split == 'train' else mask)
    train, val = data_report(config(tmp_path, [*'abcde']))
    assert train.remarks == [
        'Masks seem shifted: moved 6 pixels left, the masks of 10 of 10 images fit the edges in the images better.'
    ]
    assert val.remarks == []


@pytest.mark.skipif(DATA is None, reason='TOKENLABEL_TEST_DATA names no folder')
@pytest.mark.parametrize('split', ['train', 'val'])
def test_shifted_masks_of_photographs_are_found(split):
    images = sorted(Path(DATA, 'camvid/images', split).iterdir())[::9]
    pairs = []
    for path in images:
        stored = read_stored(Path(DATA, 'camvid/masks', split, f'{path.stem}.png'))
        pairs.append((read_image(path), np.where(stored == 11, 255, stored).astype(np.uint8)))
    assert shift(pairs) is None
    for down, right in ((0, 6), (-3, 4), (2, 2)):
        found = shift((image, moved(mask, down, right)) for image, mask in pairs)
        assert abs(found.down + down) <= 1 and abs(found.right + right) <= 1
