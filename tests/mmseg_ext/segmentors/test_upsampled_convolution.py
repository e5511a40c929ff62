"""Convolving small maps gives what enlarging them first and convolving then gives."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmcv.cnn import ConvModule
from mmseg.models.utils import resize
from torch import Tensor, nn

from mmseg_ext.segmentors.light_heads import head_logits
from mmseg_ext.segmentors.upsampled_convolution import convolved_enlarged, is_plain
from tests.tiny_segmentors import segmentor

SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))


def module(num_in: int, kernel: int = 3, norm: str | None = 'BN', **options) -> ConvModule:
    torch.manual_seed(0)
    norm_cfg = dict(type=norm) if norm else None
    built = ConvModule(num_in, 5, kernel, padding=kernel // 2, norm_cfg=norm_cfg, **options).eval()
    if norm:
        for tensor in (built.norm.running_mean, built.norm.weight, built.norm.bias):
            nn.init.uniform_(tensor, -1, 1)
        nn.init.uniform_(built.norm.running_var, 0.5, 2)
    return built


def enlarged_first(module: ConvModule, maps: list[Tensor], align_corners: bool) -> Tensor:
    size = maps[0].shape[2:]
    return module(torch.cat([resize(x, size, mode='bilinear', align_corners=align_corners) for x in maps], 1))


@given(
    st.tuples(st.integers(2, 24), st.integers(2, 24)),
    st.lists(SIZES, min_size=1, max_size=3),
    st.sampled_from([1, 3, 5]),
    st.sampled_from(['BN', None]),
    st.booleans(),
)
@torch.no_grad()
def test_maps_of_any_size(size, smaller, kernel, norm, align_corners):
    conv = module(3 + 2 * len(smaller), kernel, norm)
    maps = [torch.randn(2, 3, *size), *(torch.randn(2, 2, *shape) for shape in smaller)]
    expected = enlarged_first(conv, maps, align_corners)
    torch.testing.assert_close(convolved_enlarged(conv, maps, align_corners), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_maps_of_one_size_are_taken_together():
    conv = module(7, act_cfg=None)
    maps = [torch.randn(1, 3, 8, 8), torch.randn(1, 2, 4, 4), torch.randn(1, 2, 4, 4)]
    torch.testing.assert_close(convolved_enlarged(conv, maps, False), enlarged_first(conv, maps, False))


@pytest.mark.parametrize(
    'options',
    [
        dict(groups=5),
        dict(stride=2),
        dict(dilation=2),
        dict(padding=0),
        dict(padding_mode='reflect'),
        dict(norm_cfg=dict(type='IN')),
        dict(order=('norm', 'conv', 'act'), norm_cfg=dict(type='BN')),
    ],
    ids=lambda options: next(iter(options)),
)
def test_other_convolutions_are_left_to_themselves(options):
    assert not is_plain(ConvModule(5, 5, 3, **(dict(padding=1) | options)).eval())


def test_a_layer_in_training_mode_is_left_to_itself():
    assert is_plain(module(4))
    assert not is_plain(module(4).train())


@pytest.mark.parametrize('align_corners', [False, True])
@torch.no_grad()
def test_the_logits_of_an_uper_head_are_its_own(align_corners):
    model = segmentor(head_options=dict(align_corners=align_corners))
    features = model.extract_feat(torch.randn(2, 3, 40, 56))
    expected = model.decode_head(features)
    torch.testing.assert_close(head_logits(model.decode_head, features), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_logits_of_a_head_in_training_mode_are_its_own():
    model = segmentor()
    features = model.extract_feat(torch.randn(2, 3, 40, 56))
    model.decode_head.train()
    torch.manual_seed(1)
    expected = model.decode_head(features)
    torch.manual_seed(1)
    assert torch.equal(head_logits(model.decode_head, features), expected)
