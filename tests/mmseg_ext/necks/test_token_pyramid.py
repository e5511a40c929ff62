"""Necks over the backbone's four maps. (Agreement with the release: tests/mmseg_ext/backbones/test_lvvit.py.)"""

import pytest
import torch
from mmseg.registry import MODELS

import mmseg_ext  # noqa: F401  (registers the names)

PYRAMID = dict(in_channels=16, out_channels=24, norm_cfg=dict(type='BN'))


def maps(count: int = 4) -> list[torch.Tensor]:
    return [torch.randn(2, 16, 2, 3) for _ in range(count)]


def test_strides_become_4_8_16_16():
    levels = MODELS.build(dict(type='TokenPyramid', **PYRAMID))(maps())
    assert [x.shape[1:] for x in levels] == [(16, 8, 12), (16, 4, 6), (16, 2, 3), (24, 2, 3)]


def test_another_number_of_maps_is_refused():
    with pytest.raises(ValueError, match='4 out_indices'):
        MODELS.build(dict(type='TokenPyramid', **PYRAMID))(maps(3))


def test_the_pyramid_with_fpn_gives_levels_of_one_width():
    neck = MODELS.build(
        dict(
            type='TokenPyramidFPN',
            pyramid=PYRAMID,
            fpn=dict(in_channels=[16, 16, 16, 24], out_channels=8, num_outs=4),
        )
    )
    assert [x.shape[1:] for x in neck(maps())] == [(8, 8, 12), (8, 4, 6), (8, 2, 3), (8, 2, 3)]
