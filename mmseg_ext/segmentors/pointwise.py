"""1x1 convolutions, as matrix products on a CPU."""

import torch
from torch import Tensor
from torch.nn import functional as F


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Mixes the channels of a map [B, C, H, W] by weights [O, C]: [B, O, H, W], contiguous on a CPU.

    On a CPU, a 1x1 convolution in bfloat16 returns channels-last maps, and converting them costs more than the product.
    """
    if x.device.type != 'cpu':
        return F.conv2d(x, weight[..., None, None], bias)
    weights, pixels = weight.expand(len(x), -1, -1), x.flatten(2)
    mixed = torch.bmm(weights, pixels) if bias is None else torch.baddbmm(bias[:, None], weights, pixels)
    return mixed.view(len(x), -1, *x.shape[2:])
