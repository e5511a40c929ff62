"""Tiles cover the labels once, take the input that they need, and interpolate as PyTorch does."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from mmseg_ext.inference.tiles import Interpolation, SlidingTiles, Tile, WholeTiles, labels_of, tiles


def window_starts(size: int, crop: int, stride: int) -> list[int]:
    """As MMSegmentation's `slide_inference` places windows."""
    number = max(size - crop + stride - 1, 0) // stride + 1
    return [max(min(i * stride + crop, size) - crop, 0) for i in range(number)]


@given(st.data())
def test_the_windows_of_a_tile_are_those_of_the_whole_image_that_touch_it(data):
    size, crop = data.draw(st.integers(1, 90)), data.draw(st.integers(1, 40))
    stride = data.draw(st.integers(1, crop))
    start = data.draw(st.integers(0, size - 1))
    stop = data.draw(st.integers(start + 1, size))
    begin, end = SlidingTiles(crop, stride).reach(start, stop, size)
    touching = [s for s in window_starts(size, crop, stride) if s < stop and s + crop > start]
    windows = [begin + s for s in window_starts(end - begin, crop, stride)]
    assert [s for s in windows if s < stop and s + crop > start] == touching


def test_a_tile_of_a_whole_image_model_has_its_margin_and_starts_at_a_patch():
    reach = WholeTiles(margin=20, align=16)
    assert reach.reach(50, 60, 200) == (16, 80)
    assert reach.reach(0, 60, 70) == (0, 70)


@given(st.data())
def test_interpolation_is_pytorchs_for_any_part(data):
    inputs, outputs = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 60))
    corners = data.draw(st.booleans())
    start = data.draw(st.integers(0, outputs - 1))
    stop = data.draw(st.integers(start + 1, outputs))
    x = torch.randn(2, 1, inputs, generator=torch.Generator().manual_seed(inputs))
    whole = F.interpolate(x[None], (1, outputs), mode='bilinear', align_corners=corners)[0]
    interpolation = Interpolation.between(inputs, outputs, corners)
    first, last = interpolation.needed(start, stop)
    part = interpolation.apply(x[:, :, first:last], 2, first, start, stop)
    torch.testing.assert_close(part, whole[:, :, start:stop], rtol=0, atol=1e-5)


@given(st.tuples(st.integers(1, 5), st.integers(1, 5)), st.tuples(st.integers(1, 9), st.integers(1, 50)))
def test_tiles_cover_every_label_once(pieces, size):
    interpolations = tuple(Interpolation.between(40, side, False) for side in size)
    counts = np.zeros(size, int)
    for tile in tiles(pieces, interpolations, (WholeTiles(4, 8), SlidingTiles(16, 10)), (40, 48)):
        counts[slice(*tile.rows), slice(*tile.cols)] += 1
    assert (counts == 1).all()


@pytest.mark.parametrize('size', [(45, 70), (8, 9), (20, 30)], ids=['enlarged', 'shrunk', 'as it is'])
@pytest.mark.parametrize('band_bytes', [1, 2**20])
def test_bands_of_labels_are_the_best_classes_of_interpolated_logits(size, band_bytes):
    logits = torch.randn(5, 20, 30, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(logits[None], size, mode='bilinear')[0].argmax(0)
    interpolations = tuple(Interpolation.between(a, b, False) for a, b in zip((20, 30), size, strict=True))
    labels = torch.full(size, -1)
    for rows, cols in itertools.product([(0, 3), (3, size[0])], [(0, 7), (7, size[1])]):
        tile = Tile(rows, cols, (0, 20), (0, 30))
        for row, band in labels_of(logits, tile, interpolations, band_bytes):
            labels[row : row + len(band), slice(*cols)] = band
    assert torch.equal(labels, expected)
