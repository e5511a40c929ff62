"""CutMix and Mixup of pixels and of dense targets, pixel by pixel."""

import torch
from torch import Tensor


def own_pixels(lam: float, box: tuple[int, int, int, int], size: tuple[int, int]) -> Tensor:
    """The share of its own that each pixel of an image shows, float64 [H, W]."""
    own = torch.full(size, lam, dtype=torch.float64)
    y1, x1, y2, x2 = box
    for y in range(y1, y2):
        for x in range(x1, x2):
            own[y, x] = 0
    return own


def mixed_images(images: Tensor, own: Tensor) -> Tensor:
    """Images [B, C, H, W] mixed with those of the reversed batch."""
    return own * images + (1 - own) * images.flip(0)


def own_tokens(own: Tensor, grid: tuple[int, int]) -> Tensor:
    """The mean of `own_pixels` over each token's area [N]; pixels are cut into pieces that no token divides."""
    (rows, columns), (height, width) = grid, own.shape
    pieces = own.repeat_interleave(rows, 0).repeat_interleave(columns, 1)
    return pieces.reshape(rows, height, columns, width).mean((1, 3)).flatten()


def mixed_targets(target: Tensor, own: Tensor) -> Tensor:
    """Dense targets [B, N, C], each token's by its share of `own` [N]."""
    return own[:, None] * target + (1 - own)[:, None] * target.flip(0)
