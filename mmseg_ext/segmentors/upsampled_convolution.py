"""A convolution over maps of several resolutions, without enlarging them first.

UPerHead and PSPHead enlarge maps to one size, concatenate them and convolve: most of the head's work, and most of it
spent on interpolated values. A convolution is linear, and so is bilinear interpolation, which moreover treats rows and
columns apart. So the products with the kernel are taken at each map's own resolution, and the sums

    out[y, x] = sum over (ky, kx) of sum over (i, j) of U[y + ky, i] U[x + kx, j] (W[ky, kx] map)[i, j]

with U the interpolation along one side, zero outside, become two products with small matrices.
"""

from collections.abc import Sequence

import torch
from mmcv.cnn import ConvModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights


def is_plain(module: nn.Module) -> bool:
    """Whether a ConvModule is a dense convolution that keeps the size, with running statistics or no normalisation."""
    if not isinstance(module, ConvModule) or type(module.conv) is not nn.Conv2d:
        return False
    conv, norm = module.conv, module.norm
    keeps_size = all(
        size % 2 == 1 and padding == size // 2
        for size, padding in zip(conv.kernel_size, conv.padding, strict=True)
        if not isinstance(conv.padding, str)
    )
    dense = conv.stride == conv.dilation == (1, 1) and conv.groups == 1 and conv.padding_mode == 'zeros'
    normalised = norm is None or (
        isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.running_mean is not None and not norm.training
    )
    return keeps_size and dense and normalised and not module.with_explicit_padding and module.order[0] == 'conv'


def folded(module: ConvModule) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a plain ConvModule's convolution, its normalisation included."""
    conv, norm = module.conv, module.norm
    if norm is None:
        return conv.weight, conv.bias
    return fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )


def convolved(module: ConvModule, x: Tensor) -> Tensor:
    """A plain ConvModule's output [B, O, H, W] for a map [B, C, H, W], normalised by its weights."""
    weight, bias = folded(module)
    out = F.conv2d(x, weight, bias, padding=module.conv.padding)
    return module.activate(out) if module.with_activation else out


def convolved_enlarged(module: ConvModule, maps: Sequence[Tensor], align_corners: bool) -> Tensor:
    """A plain ConvModule's output for maps [B, C_i, h_i, w_i] enlarged to the first one's size and concatenated."""
    weight, bias = folded(module)
    size = maps[0].shape[2:]
    weights = weight.split([x.shape[1] for x in maps], dim=1)
    out = None
    for shape in dict.fromkeys(x.shape[2:] for x in maps):
        same = [index for index, x in enumerate(maps) if x.shape[2:] == shape]
        x = torch.cat([maps[index] for index in same], 1) if len(same) > 1 else maps[same[0]]
        part = torch.cat([weights[index] for index in same], 1)
        if shape == size:
            out = F.conv2d(x, part, bias, padding=module.conv.padding)
        else:
            add_enlarged(out, x, part, align_corners)
    return module.activate(out) if module.with_activation else out


def add_enlarged(out: Tensor, x: Tensor, weight: Tensor, align_corners: bool) -> None:
    """Adds to `out` [B, O, H, W] the convolution of a map [B, C, h, w] enlarged to its size."""
    num_out, num_in, *kernel = weight.shape
    batch, _, height, width = x.shape
    rows, columns = (
        shifted_interpolation(*sides, align_corners, out.device).to(out)
        for sides in zip((height, width), out.shape[2:], kernel, strict=True)
    )
    products = F.conv2d(x, weight.permute(0, 2, 3, 1).reshape(-1, num_in, 1, 1))
    products = products.view(batch, num_out, *kernel, height, width).transpose(3, 4)
    across = products.reshape(batch * num_out * kernel[0] * height, -1) @ columns.T
    across = across.view(batch * num_out, kernel[0] * height, -1)
    out.view(batch * num_out, *out.shape[2:]).baddbmm_(rows.expand(len(across), -1, -1), across)


def shifted_interpolation(size: int, target: int, kernel: int, align_corners: bool, device: torch.device) -> Tensor:
    """[target, kernel * size]: interpolation along one side, once for each offset of an odd kernel, zero outside."""
    identity = torch.eye(size, device=device)[None]
    matrix = F.interpolate(identity, target, mode='linear', align_corners=align_corners)[0].T
    padded = F.pad(matrix, (0, 0, kernel // 2, kernel // 2))
    return torch.cat([padded[offset : offset + target] for offset in range(kernel)], 1)
