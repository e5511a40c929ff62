"""A convolution over maps of several resolutions, without upsampling them first.

UPerHead and PSPHead upsample maps to one size, concatenate them and convolve. This is most of the head's work, and most
of it runs on interpolated values. Convolution and bilinear interpolation are linear, and interpolation is separable
into rows and columns. The kernel products are therefore computed at each map's own resolution, and the sums

    out[y, x] = sum over (ky, kx) of sum over (i, j) of U[y + ky, i] U[x + kx, j] (W[ky, kx] map)[i, j]

with U the interpolation along one axis, zero outside, become two products with small matrices.
"""

from collections.abc import Sequence

import torch
from mmcv.cnn import ConvModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from mmseg_ext.segmentors.folded_sequential import has_statistics
from mmseg_ext.segmentors.pointwise import pointwise


def is_plain(module: nn.Module) -> bool:
    """Whether a ConvModule is a dense size-preserving convolution with no norm or a BatchNorm of running statistics."""
    if not isinstance(module, ConvModule) or type(module.conv) is not nn.Conv2d:
        return False
    conv, norm = module.conv, module.norm
    keeps_size = all(
        size % 2 == 1 and padding == size // 2
        for size, padding in zip(conv.kernel_size, conv.padding, strict=True)
        if not isinstance(conv.padding, str)
    )
    dense = conv.stride == conv.dilation == (1, 1) and conv.groups == 1 and conv.padding_mode == 'zeros'
    normalised = norm is None or has_statistics(norm)
    return keeps_size and dense and normalised and not module.with_explicit_padding and module.order[0] == 'conv'


def convolved(module: ConvModule, x: Tensor) -> Tensor:
    """A plain ConvModule's output [B, O, H, W] for a map [B, C, H, W]."""
    return convolved_enlarged(module, [x], align_corners=False)


def convolved_enlarged(module: ConvModule, maps: Sequence[Tensor], align_corners: bool) -> Tensor:
    """A plain ConvModule's output for maps [B, C_i, h_i, w_i] upsampled to the first one's size and concatenated."""
    conv, norm = module.conv, module.norm
    weight, bias, size = conv.weight, conv.bias, maps[0].shape[2:]
    # If there are fewer weights than outputs, normalising the weights saves a pass over the output.
    folds = norm is not None and weight[0].numel() < len(maps[0]) * size.numel()
    if folds:
        statistics = (norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
        weight, bias = fuse_conv_bn_weights(weight, bias, *statistics)
    weights = weight.split([x.shape[1] for x in maps], dim=1)
    out = None
    for shape in dict.fromkeys(x.shape[2:] for x in maps):
        same = [index for index, x in enumerate(maps) if x.shape[2:] == shape]
        x, part = maps[same[0]], weights[same[0]]
        if len(same) > 1:
            x, part = torch.cat([maps[index] for index in same], 1), torch.cat([weights[index] for index in same], 1)
        if shape == size and conv.kernel_size == (1, 1):
            out = pointwise(x, part.flatten(1), bias)
        elif shape == size:
            out = F.conv2d(x, part, bias, padding=conv.padding)
        else:
            out = plus_enlarged(out, x, part, align_corners)
    if norm is not None and not folds:
        out = norm(out)
    return module.activate(out) if module.with_activation else out


def plus_enlarged(out: Tensor, x: Tensor, weight: Tensor, align_corners: bool) -> Tensor:
    """Adds the convolution of a map [B, C, h, w] upsampled to H x W to `out` [B, O, H, W], which is overwritten."""
    num_out, num_in, num_rows, num_columns = weight.shape
    batch, _, height, width = x.shape
    rows = shifted_interpolation(height, out.shape[2], num_rows, align_corners, out.device).to(out)
    columns = shifted_interpolation(width, out.shape[3], num_columns, align_corners, out.device).to(out)
    products = pointwise(x, weight.permute(3, 0, 2, 1).reshape(-1, num_in))
    products = products.reshape(batch, num_columns, num_out * num_rows * height, width)
    first, *remaining = zip(products.unbind(1), columns.split(width, 1), strict=True)
    across = first[0] @ first[1].T
    for product, column in remaining:
        across += product @ column.T
    across = across.view(batch * num_out, num_rows * height, -1)
    summed = out.reshape(batch * num_out, *out.shape[2:])  # a copy if a GPU's convolution returned channels last
    return summed.baddbmm_(rows.expand(len(across), -1, -1), across).view(out.shape)


def shifted_interpolation(size: int, target: int, kernel: int, align_corners: bool, device: torch.device) -> Tensor:
    """Interpolation along one axis for each offset of an odd kernel, zero outside: [target, kernel * size]."""
    identity = torch.eye(size, device=device)[None]
    matrix = F.interpolate(identity, target, mode='linear', align_corners=align_corners)[0].T
    padded = F.pad(matrix, (0, 0, kernel // 2, kernel // 2))
    return torch.cat([padded[offset : offset + target] for offset in range(kernel)], 1)
