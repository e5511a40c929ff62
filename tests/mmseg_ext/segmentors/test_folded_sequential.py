"""Folded layers give what the layers give one after the other."""

import copy

import pytest
import torch
from torch import nn

from mmseg_ext.segmentors.folded_sequential import FoldedSequential, fold_sequentials
from tests.tiny_segmentors import segmentor


def layers(kernel: int = 2, **options) -> nn.Sequential:
    """The pyramid's layers, with statistics that matter."""
    torch.manual_seed(0)
    enlarge = nn.ConvTranspose2d(4, 6, kernel, **(dict(stride=kernel) | options))
    norms = nn.BatchNorm2d(6), nn.BatchNorm2d(3)
    for norm in norms:
        for tensor in (norm.running_mean, norm.weight, norm.bias):
            nn.init.uniform_(tensor, -1, 1)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    return nn.Sequential(enlarge, norms[0], nn.ReLU(), nn.Conv2d(6, 3, 1), norms[1], nn.ReLU()).eval()


def folded(module: nn.Module) -> nn.Module:
    module = copy.deepcopy(module)
    fold_sequentials(module)
    assert type(module) is FoldedSequential
    return module


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('kernel', [2, 4])
@torch.no_grad()
def test_convolutions_and_patchwise_deconvolutions(kernel, bias):
    plain = layers(kernel, bias=bias)
    x = torch.randn(2, 4, 5, 7)
    torch.testing.assert_close(folded(plain)(x), plain(x))


@pytest.mark.parametrize('options', [dict(padding=1), dict(stride=1), dict(groups=2)], ids=str)
@torch.no_grad()
def test_other_deconvolutions(options):
    plain = layers(**options)
    x = torch.randn(2, 4, 5, 7)
    torch.testing.assert_close(folded(plain)(x), plain(x))


def test_training_is_untouched():
    plain = layers().train()
    other = folded(plain)
    x = torch.randn(2, 4, 5, 7)
    for module in (plain, other):
        module(x).sum().backward()
    assert all(torch.equal(one.grad, two.grad) for one, two in zip(plain.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(one, two) for one, two in zip(plain.buffers(), other.buffers(), strict=True))


def test_weights_keep_their_names():
    assert list(segmentor().state_dict()) == list(segmentor(type='EncoderDecoder').state_dict())
