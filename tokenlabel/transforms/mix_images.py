"""CutMix and Mixup of pixels: one draw per batch, and image b is mixed with image B - 1 - b.

Both use one formula: an image keeps the share lam of its pixels outside a box and nothing inside. CutMix has lam = 1,
Mixup an empty box. A token's target is mixed by the mean share that the token's own pixels keep.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Beta

from tokenlabel.transforms.mix_token import cut_box


@dataclass(frozen=True)
class ImageMix:
    """How the images of one batch are mixed with those of the reversed batch.

    All values are on the host, so mixing never synchronises with a GPU.

    Attributes:
        lam: share of its own pixels that an image keeps outside the box, in [0, 1].
        box: (y1, x1, y2, x2) in pixels, ends excluded; pixels inside come from the partner.
        size: (height, width) of the images in pixels.
    """

    lam: float
    box: tuple[int, int, int, int]
    size: tuple[int, int]

    def images(self, images: Tensor) -> Tensor:
        """The mixture of float `images` [B, C, H, W] with those of the reversed batch, [B, C, H, W]."""
        partner = images.flip(0)
        mixed = torch.lerp(partner, images, self.lam)
        y1, x1, y2, x2 = self.box
        mixed[..., y1:y2, x1:x2] = partner[..., y1:y2, x1:x2]
        return mixed

    def kept_by_tokens(self, grid: tuple[int, int]) -> Tensor:
        """The share of its own image that each token keeps, row by row: float32 [rows * cols] in [0, 1], on the host.

        Token (r, c) owns its part of the image's area, even if the grid does not divide the image size in pixels.
        """
        y1, x1, y2, x2 = self.box
        rows, columns = (
            _covered(start, end, length, parts)
            for start, end, length, parts in zip((y1, x1), (y2, x2), self.size, grid, strict=True)
        )
        return (self.lam * (1 - rows[:, None] * columns)).flatten().float()

    def kept(self) -> Tensor:
        """The share of its own pixels that a whole image keeps, a float32 scalar in [0, 1]."""
        return self.kept_by_tokens((1, 1))[0]


def draw_mix(size: tuple[int, int], cutmix: float = 0.0, mixup: float = 0.0, switch_prob: float = 0.5) -> ImageMix:
    """Draws the mixture of one batch from torch's global generator, as timm does.

    Args:
        size: (height, width) of the images in pixels.
        cutmix: alpha of CutMix, whose box covers 1 - lam of an image, lam ~ Beta(alpha, alpha); 0 for no CutMix.
        mixup: alpha of Mixup, lam ~ Beta(alpha, alpha); 0 for no Mixup.
        switch_prob: probability of CutMix if both are on.
    """
    cut = cutmix > 0 and (mixup == 0 or torch.rand(()).item() < switch_prob)
    alpha = cutmix if cut else mixup
    lam = Beta(alpha, alpha).sample()
    if not cut:
        return ImageMix(lam.item(), (0, 0, 0, 0), size)
    return ImageMix(1.0, tuple(cut_box(size, lam, torch.rand(2)).tolist()), size)


def _covered(start: int, end: int, length: int, parts: int) -> Tensor:
    """The share of each of `parts` equal parts of [0, length] that lies in [start, end]: float64 [parts]."""
    edges = torch.arange(parts + 1, dtype=torch.float64) * length / parts
    inside = edges.clamp(start, end)
    return inside.diff() * parts / length
