"""MixToken: exchange a box of tokens between the images of a batch.

One box per batch is drawn as in CutMix (lam ~ Beta(1, 1), paper section 3.3). Image b gets the tokens inside the box
from image B - 1 - b, so exchanging twice restores the batch. The model mixes after the patch embedding and applies the
same operation to its token logits. All functions work by mask on the device of the tokens: no shape depends on the box,
and the host never waits.
"""

import torch
from torch import Tensor

Box = Tensor | tuple[int, int, int, int]


def draw_box(
    grid: tuple[int, int], generator: torch.Generator | None = None, device: torch.device | str | None = None
) -> Tensor:
    """Draws the box of one batch.

    The box covers the share 1 - lam of the grid, with lam uniform in [0, 1], that is Beta(1, 1). It has the grid's
    aspect ratio, and its centre is uniform over the tokens. As in the release, its sides are rounded down to even
    numbers and it is clipped to the grid; it may be empty.

    Args:
        grid: (rows, cols) of tokens.
        generator: random generator on `device`; the global one if None.
        device: device of the draw and of the result.

    Returns:
        int64 [4], (y1, x1, y2, x2) in tokens, ends excluded.
    """
    draws = torch.rand(3, generator=generator, device=device)
    return cut_box(grid, draws[0], draws[1:])


def cut_box(size: tuple[int, int], lam: Tensor, place: Tensor) -> Tensor:
    """CutMix's box: it covers the share 1 - `lam` of an area before it is clipped to the area.

    Args:
        size: (rows, cols) of the area.
        lam: scalar in [0, 1].
        place: [2] in [0, 1), the (y, x) of its centre in fractions of the area.

    Returns:
        int64 [4], (y1, x1, y2, x2), ends excluded, on the device of `place`.
    """
    half = [(side * (1 - lam).sqrt()).long() // 2 for side in size]
    centre = [(side * position).long() for side, position in zip(size, place.unbind(), strict=True)]
    start = [(c - h).clamp(min=0) for c, h in zip(centre, half, strict=True)]
    end = [(c + h).clamp(max=side) for c, h, side in zip(centre, half, size, strict=True)]
    return torch.stack(start + end)


def drawing_device(x: Tensor) -> torch.device:
    """The device to draw a box on: the host, where small operations are cheap, or that of `x` in a compiled graph.

    A compiled graph fuses these operations into one kernel; on the host it would also need a C++ compiler.
    """
    return x.device if torch.compiler.is_compiling() else torch.device('cpu')


def box_mask(box: Box, grid: tuple[int, int], device: torch.device | str | None = None) -> Tensor:
    """Mask of the tokens inside `box` (y1, x1, y2, x2): bool [rows, cols] on `device`, by default that of the box."""
    if device is None and isinstance(box, Tensor):
        device = box.device
    y1, x1, y2, x2 = box
    y = torch.arange(grid[0], device=device)
    x = torch.arange(grid[1], device=device)
    return ((y >= y1) & (y < y2))[:, None] & ((x >= x1) & (x < x2))


def mix_tokens(tokens: Tensor, box: Box) -> Tensor:
    """Exchanges the tokens inside `box` with those of the reversed batch.

    Args:
        tokens: [B, rows, cols, D], embeddings or logits.
        box: (y1, x1, y2, x2) in tokens.

    Returns:
        [B, rows, cols, D]; a second call with the same box restores `tokens`.
    """
    mask = box_mask(box, tokens.shape[1:3], tokens.device)
    return torch.where(mask[..., None], tokens.flip(0), tokens)


def mix_regions(maps: Tensor, box: Box, grid: tuple[int, int]) -> Tensor:
    """`mix_tokens` for maps that are finer than the token grid: exchanges the area of the box's tokens.

    Args:
        maps: [B, H, W, D], pixels or embeddings of patches.
        box: (y1, x1, y2, x2) in tokens.
        grid: (rows, cols) of tokens; if they do not divide H and W, a position belongs to the token that contains its
            upper left corner.

    Returns:
        [B, H, W, D].
    """
    (height, width), (rows, columns) = maps.shape[1:3], grid
    row = torch.arange(height, device=maps.device) * rows // height
    column = torch.arange(width, device=maps.device) * columns // width
    mask = box_mask(box, grid, maps.device)[row[:, None], column]
    return torch.where(mask[..., None], maps.flip(0), maps)


def kept_share(box: Box, grid: tuple[int, int], device: torch.device | str | None = None) -> Tensor:
    """lam = 1 - box_tokens / N: the share of its tokens that an image keeps, a float32 scalar in [0, 1]."""
    return 1 - box_mask(box, grid, device).float().mean()
