"""Necks over the backbone's four maps. (Agreement with the release: tests/mmseg_ext/backbones/test_lvvit.py.)"""

import pytest
import torch
from mmseg.registry import MODELS

import mmseg_ext  # noqa: F401  (registers the names)
from tokenlabel.errors import UserError

PYRAMID = dict(in_channels=16, out_channels=24, norm_cfg=dict(type='BN'))


def maps(count: int = 4) -> list[torch.Tensor]:
    return [torch.randn(2, 16, 2, 3) for _ in range(count)]


def test_strides_become_4_8_16_16():
    levels = MODELS.build(dict(type='TokenPyramid', **PYRAMID))(maps())
    assert [x.shape[1:] for x in levels] == [(16, 8, 12), (16, 4, 6), (16, 2, 3), (24, 2, 3)]


def test_the_regular_pyramid_ends_at_half_the_tokens_rounded_up():
    levels = MODELS.build(dict(type='TokenPyramid', **PYRAMID, strides=(4, 8, 16, 32)))(maps())
    assert [x.shape[1:] for x in levels] == [(16, 8, 12), (16, 4, 6), (16, 2, 3), (24, 1, 2)]


def test_the_regular_pyramid_takes_the_largest_of_each_2x2_and_the_weights_of_the_released_one():
    released = MODELS.build(dict(type='TokenPyramid', **PYRAMID)).eval()
    regular = MODELS.build(dict(type='TokenPyramid', **PYRAMID, strides=[4, 8, 16, 32])).eval()
    regular.load_state_dict(released.state_dict())
    x = maps()
    pooled = torch.stack([x[3][..., :2].amax((2, 3)), x[3][..., 2:].amax((2, 3))], dim=-1)[:, :, None]
    with torch.no_grad():
        torch.testing.assert_close(regular(x)[3], released([*x[:3], pooled])[3])
        torch.testing.assert_close(regular(x)[:3], released(x)[:3])


def test_a_single_token_stays_a_single_token():
    neck = MODELS.build(dict(type='TokenPyramid', **PYRAMID, strides=(4, 8, 16, 32)))
    assert neck([torch.randn(2, 16, 1, 1)] * 4)[3].shape == (2, 24, 1, 1)


def test_other_strides_are_refused():
    with pytest.raises(UserError, match='no strides'):
        MODELS.build(dict(type='TokenPyramid', **PYRAMID, strides=(8, 8, 16, 32)))


def test_another_number_of_maps_is_refused():
    with pytest.raises(ValueError, match='4 out_indices'):
        MODELS.build(dict(type='TokenPyramid', **PYRAMID))(maps(3))


def test_the_pyramid_with_fpn_gives_levels_of_one_width():
    fpn = dict(in_channels=[16, 16, 16, 24], out_channels=8, num_outs=4)
    for strides, last in (((4, 8, 16, 16), (8, 2, 3)), ((4, 8, 16, 32), (8, 1, 2))):
        neck = MODELS.build(dict(type='TokenPyramidFPN', pyramid=PYRAMID | dict(strides=strides), fpn=fpn))
        assert [x.shape[1:] for x in neck(maps())] == [(8, 8, 12), (8, 4, 6), (8, 2, 3), last]
