"""View rules: the pixels an annotator sees, and the View that the image's size alone gives."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tokenlabel.errors import UserError
from tokenlabel.labels.view_rule import CenterCrop, Native, Squash, rule_record, view_rule
from tokenlabel.transforms.image import EvalTransform

sides = st.integers(1, 900)


def gradient(width: int, height: int) -> Image.Image:
    """Red says where a pixel lies from left to right, green from top to bottom: 0 to 255."""
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    return Image.fromarray(np.stack([255 * x, 255 * y, 128 + 0 * x], -1).round().astype(np.uint8))


@given(width=sides, height=sides, size=st.sampled_from([32, 224, 576]), crop_pct=st.sampled_from([0.875, 0.956, 1.0]))
def test_the_centre_crop_s_view_is_that_of_the_evaluation_transform(width, height, size, crop_pct):
    if max(width, height) > 20 * min(width, height):
        width = height
    _, expected = EvalTransform(size, crop_pct)(Image.new('RGB', (width, height)))
    np.testing.assert_allclose(CenterCrop(size, crop_pct).view(width, height).matrix, expected.matrix, atol=1e-12)


@pytest.mark.parametrize('rule', [Squash(64), CenterCrop(64), CenterCrop(64, 0.8), Native(64)])
@pytest.mark.parametrize('size', [(200, 100), (90, 250), (120, 120)])
def test_the_view_says_where_the_pixels_come_from(rule, size):
    pixels = rule.pixels(gradient(*size)).float() / 255
    assert pixels.shape == (3, 64, 64)
    u, v = np.meshgrid((np.arange(64) + 0.5) / 64, (np.arange(64) + 0.5) / 64)
    x, y = np.moveaxis(rule.view(*size).apply(np.stack([u, v], -1)), -1, 0)
    inside = (x > 0.05) & (x < 0.95) & (y > 0.05) & (y < 0.95)
    assert inside.sum() > 500
    np.testing.assert_allclose(pixels[0].numpy()[inside], x[inside], atol=0.02)
    np.testing.assert_allclose(pixels[1].numpy()[inside], y[inside], atol=0.02)


def test_a_native_view_keeps_the_aspect_and_pads_with_the_fill():
    rule = Native(64, fill=(1, 2, 3))
    pixels = rule.pixels(Image.new('RGB', (100, 50), (200, 200, 200)))
    assert rule.placement(100, 50) == (0, 16, 64, 32)
    assert (pixels[:, 16:48] == 200).all()
    padding = torch.cat([pixels[:, :16], pixels[:, 48:]], 1)
    assert (padding == torch.tensor([1, 2, 3])[:, None, None]).all()


def test_padding_cells_repeat_the_nearest_cell_of_the_image():
    maps = torch.arange(32.0).view(2, 1, 4, 4)
    settled = Native(64).settle(maps, torch.tensor([[100, 50], [30, 60]]))
    assert settled[0, 0].tolist() == [[4, 5, 6, 7], [4, 5, 6, 7], [8, 9, 10, 11], [8, 9, 10, 11]]
    assert settled[1, 0, 0].tolist() == [17, 17, 18, 18]


@given(width=sides, height=sides, size=st.sampled_from([32, 64, 224]), side=st.integers(1, 18))
def test_settling_moves_no_cell_of_the_image_and_leaves_none_of_the_padding(width, height, size, side):
    rule = Native(size)
    maps = torch.arange(float(side * side)).view(1, 1, side, side)
    settled = rule.settle(maps, torch.tensor([[width, height]]))[0, 0]
    left, top, shown_width, shown_height = rule.placement(width, height)
    centres = (torch.arange(side) + 0.5) * size / side
    in_x = (centres >= left) & (centres < left + shown_width)
    in_y = (centres >= top) & (centres < top + shown_height)
    inside = in_y[:, None] & in_x
    assert torch.equal(settled[inside], maps[0, 0][inside])
    if inside.any():
        assert torch.isin(settled, maps[0, 0][inside]).all()


@pytest.mark.parametrize('rule', [Squash(64), CenterCrop(64, 0.9), Native(64, (1, 2, 3))])
def test_what_a_store_records_gives_the_rule_back(rule):
    record = rule_record(rule)
    again = view_rule(record)
    assert type(again) is type(rule)
    assert rule_record(again) == record
    np.testing.assert_array_equal(again.view(300, 200).matrix, rule.view(300, 200).matrix)


@pytest.mark.parametrize('record', [{'rule': 'fisheye', 'size': 3}, {'rule': 'squash', 'size': 3, 'crop_pct': 1}])
def test_unknown_rules_and_arguments_are_refused(record):
    with pytest.raises(UserError, match=r'View rule'):
        view_rule(record)
