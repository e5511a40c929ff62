"""MixToken: exchange a box of tokens between the images of a batch.

One box per batch, drawn as CutMix draws its box (lam ~ Beta(1, 1), paper section 3.3). Image b gets the tokens that lie
inside the box from image B - 1 - b, so exchanging twice restores the batch: the model mixes after the patch embedding
and applies the same operation to its token logits. Everything works by mask on the device of the tokens: no size
depends on the box, nothing is read back to the host.
"""

import torch
from torch import Tensor

Box = Tensor | tuple[int, int, int, int]


def draw_box(
    grid: tuple[int, int], generator: torch.Generator | None = None, device: torch.device | str | None = None
) -> Tensor:
    """Draws the box of one batch.

    The box covers the share 1 - lam of the grid, lam ~ Beta(1, 1) (that is uniform), with the grid's aspect ratio and a
    centre that is uniform over the tokens. Its sides are rounded down to even numbers and it is clipped to the grid, as
    in the release; it may be empty.

    Args:
        grid: (rows, cols) of tokens.
        generator: source of randomness on `device`; the global one if None.
        device: where to draw.

    Returns:
        int64 [4], (y1, x1, y2, x2) in tokens, the ends excluded.
    """
    draws = torch.rand(3, generator=generator, device=device)
    return cut_box(grid, draws[0], draws[1:])


def cut_box(size: tuple[int, int], lam: Tensor, place: Tensor) -> Tensor:
    """CutMix's box: it covers the share 1 - `lam` of an area, before what is outside is cut off.

    Args:
        size: (rows, cols) of the area.
        lam: scalar in [0, 1].
        place: [2] in [0, 1), its centre in shares of the area.

    Returns:
        int64 [4], (y1, x1, y2, x2), the ends excluded, on the device of `place`.
    """
    half = [(side * (1 - lam).sqrt()).long() // 2 for side in size]
    centre = [(side * position).long() for side, position in zip(size, place, strict=True)]
    start = [(c - h).clamp(min=0) for c, h in zip(centre, half, strict=True)]
    end = [(c + h).clamp(max=side) for c, h, side in zip(centre, half, size, strict=True)]
    return torch.stack(start + end)


def drawing_device(x: Tensor) -> torch.device:
    """Where to draw a box for `x`: on the host, where small operations are cheap; in a compiled graph where `x` is.

    There they are one kernel, and the host's would ask for a C++ compiler beside that of the GPU.
    """
    return x.device if torch.compiler.is_compiling() else torch.device('cpu')


def box_mask(box: Box, grid: tuple[int, int], device: torch.device | str | None = None) -> Tensor:
    """Tokens inside `box` (y1, x1, y2, x2): bool [rows, cols] on `device`, by default that of the box."""
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
        [B, rows, cols, D]; `mix_tokens` of it with the same box is `tokens` again.
    """
    mask = box_mask(box, tokens.shape[1:3], tokens.device)
    return torch.where(mask[..., None], tokens.flip(0), tokens)


def mix_regions(maps: Tensor, box: Box, grid: tuple[int, int]) -> Tensor:
    """`mix_tokens` of maps that are finer than the token grid: exchanges what lies below the tokens of the box.

    Args:
        maps: [B, H, W, D], pixels or embeddings of patches.
        box: (y1, x1, y2, x2) in tokens.
        grid: (rows, cols) of tokens; where they do not divide H and W, a place belongs to the token that its upper left
            corner lies in.

    Returns:
        [B, H, W, D].
    """
    (height, width), (rows, columns) = maps.shape[1:3], grid
    row = torch.arange(height, device=maps.device) * rows // height
    column = torch.arange(width, device=maps.device) * columns // width
    mask = box_mask(box, grid, maps.device)[row[:, None], column]
    return torch.where(mask[..., None], maps.flip(0), maps)


def kept_share(box: Box, grid: tuple[int, int], device: torch.device | str | None = None) -> Tensor:
    """lam = 1 - box_tokens / N: the share of tokens an image keeps, a float32 scalar in [0, 1]."""
    return 1 - box_mask(box, grid, device).float().mean()
