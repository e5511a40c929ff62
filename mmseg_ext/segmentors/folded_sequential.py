"""Folds BatchNorm into convolutions during evaluation."""

from collections import deque

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from mmseg_ext.segmentors.pointwise import pointwise


class FoldedSequential(nn.Sequential):
    """nn.Sequential that folds BatchNorms into the preceding convolutions in evaluation.

    A transposed convolution with stride equal to its kernel size maps each pixel to a patch, so it is computed as a
    matrix product and a permutation.
    """

    def forward(self, x: Tensor) -> Tensor:
        """As nn.Sequential."""
        if self.training or torch.is_grad_enabled():
            return super().forward(x)
        layers = deque(self)
        while layers:
            layer = layers.popleft()
            if is_foldable(layer):
                x = convolved(layer, layers.popleft() if layers and has_statistics(layers[0]) else None, x)
            else:
                x = layer(x)
        return x


def has_statistics(layer: nn.Module) -> bool:
    """Whether a layer is a BatchNorm with running statistics."""
    return isinstance(layer, _BatchNorm) and layer.running_mean is not None and not layer.training


def is_foldable(layer: nn.Module) -> bool:
    """Whether `convolved` supports a layer."""
    if type(layer) is nn.Conv2d:
        return layer.padding_mode == 'zeros'
    return type(layer) is nn.ConvTranspose2d and (
        layer.stride == layer.kernel_size == (layer.kernel_size[0],) * 2
        and layer.padding == layer.output_padding == (0, 0)
        and layer.dilation == (1, 1)
        and layer.groups == 1
    )


def convolved(conv: nn.Conv2d | nn.ConvTranspose2d, norm: _BatchNorm | None, x: Tensor) -> Tensor:
    """The normalised convolution of a map [B, C, H, W]."""
    weight, bias, transposed = conv.weight, conv.bias, conv.transposed
    if norm is not None:
        statistics = (norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
        weight, bias = fuse_conv_bn_weights(weight, bias, *statistics, transpose=transposed)
    if transposed:
        side = conv.kernel_size[0]
        patch_bias = None if bias is None else bias.repeat_interleave(side * side)
        return F.pixel_shuffle(pointwise(x, weight.flatten(1).T.contiguous(), patch_bias), side)
    if conv.kernel_size == conv.stride == (1, 1) and conv.padding == (0, 0) and conv.groups == 1:
        return pointwise(x, weight.flatten(1), bias)
    return F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


def fold_sequentials(model: nn.Module) -> None:
    """Converts every plain nn.Sequential of the model that contains a BatchNorm to `FoldedSequential`."""
    for module in model.modules():
        if type(module) is nn.Sequential and any(isinstance(layer, _BatchNorm) for layer in module):
            module.__class__ = FoldedSequential
