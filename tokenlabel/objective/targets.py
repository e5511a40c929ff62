"""Soft targets for the class token and for every patch token, from score maps and Views.

Token (r, c) of a rows x cols grid owns the box [c / cols, (c + 1) / cols] x [r / rows, (r + 1) / rows] of the model
input. The View maps this box into the score map. The token's score for a class is the mean of bilinear samples of the
map inside the box; a class outside a cell's top k scores 0 there. The target is the softmax of the scores over all
classes, followed by label smoothing. The class token's target is the same with a grid of one token.

Only the few classes in the cells under a token differ from the value that all other classes share. Targets are
therefore sparse: class ids, their excess over that background, and the background.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tokenlabel.errors import UserError
from tokenlabel.transforms.view import compose, invert

Geometry = Literal['exact', 'released']

# Relative tolerance for rounding errors of composed float64 matrices, which would change the number of samples.
_SLACK = 1e-9
MAX_SAMPLES = 4096  # along one side of a token


@dataclass(frozen=True)
class SparseTarget:
    """N soft targets per image over `num_classes` classes.

    Attributes:
        ids: int64 [B, N, M], classes above (or below) the background; equal ids add up.
        excess: [B, N, M], target minus background of these classes; 0 for unused entries.
        background: [B, N], target of all other classes.
        num_classes: C.
    """

    ids: Tensor
    excess: Tensor
    background: Tensor
    num_classes: int

    def total(self) -> Tensor:
        """Sum of each target over the classes, [B, N]."""
        return self.excess.sum(-1) + self.num_classes * self.background

    def best(self) -> Tensor:
        """The class with the largest excess, int64 [B, N]."""
        return self.ids.gather(-1, self.excess.argmax(-1, keepdim=True))[..., 0]

    def dense(self) -> Tensor:
        """The targets as [B, N, C]."""
        dense = self.background[..., None].repeat(1, 1, self.num_classes)
        return dense.scatter_add_(-1, self.ids, self.excess)

    def mixed(self, share: Tensor) -> 'SparseTarget':
        """`share * target + (1 - share) * target of the reversed batch`; `share` is a scalar or [N] in [0, 1]."""
        each = share[..., None]
        return SparseTarget(
            ids=torch.cat([self.ids, self.ids.flip(0)], -1),
            excess=torch.cat([self.excess * each, self.excess.flip(0) * (1 - each)], -1),
            background=self.background * share + self.background.flip(0) * (1 - share),
            num_classes=self.num_classes,
        )


@dataclass(frozen=True)
class TokenTargets:
    """The training targets of a batch.

    Attributes:
        cls: targets of the class token, N = 1.
        tokens: targets of the patch tokens, row by row, or None.
        smoothing: label smoothing included in both.
    """

    cls: SparseTarget
    tokens: SparseTarget | None
    smoothing: float = 0.0

    def dense(self) -> tuple[Tensor, Tensor | None]:
        """The class-token targets [B, C] and the token targets [B, N, C] (None where there are none)."""
        return self.cls.dense()[:, 0], None if self.tokens is None else self.tokens.dense()


@torch.no_grad()
def token_targets(
    scores: Tensor,
    classes: Tensor,
    view: Tensor,
    grid: tuple[int, int],
    num_classes: int,
    smoothing: float = 0.0,
    map_view: Tensor | None = None,
    geometry: Geometry = 'exact',
    k: int | None = None,
    temperature: float = 1.0,
) -> TokenTargets:
    """Soft targets for a batch of model inputs, looked up in their score maps.

    A token is sampled at s_y x s_x points, `s = max(1, ceil(extent of its box in cells))` per axis. The extent of a
    sheared or rotated box is the Euclidean length of its side. For axis-aligned Views this is RoIAlign with half-pixel
    centres. Samples outside the map take the nearest cell. Runs in at least float32 on the device of the scores.

    Keep the Views on the CPU: tensor sizes depend on them, and a View on the GPU would force a synchronisation.

    Args:
        scores: [B, k, S, S], top-k scores (logits) of each cell, best first; maps need not be square.
        classes: [B, k, S, S], class ids of these scores.
        view: float64 [B, 2, 3], from the model input to the source image (`View.tensor`).
        grid: (rows, cols) of tokens.
        num_classes: C.
        smoothing: label smoothing s; a target t becomes t (1 - s + s / C) + s / C, as in the release.
        map_view: [B, 2, 3], from the score map to the source image; None if maps cover the whole image.
        geometry: 'exact', or 'released' for the behaviour of the 2021 release, which exchanges rows and columns of the
            crop box, mirrors the map first for a mirrored View, and assumes that the map covers the whole image.
        k: use only the k best scores of each cell; None uses all.
        temperature: divides the scores; above 1, targets are softer. Classes that are not listed keep a score of 0.

    Raises:
        UserError: a class id is outside [0, C) (checked on CPU only); a View is sheared or rotated with
            geometry='released'; a View is not finite, has no area or spans thousands of maps; an argument is out of
            range.
        ValueError: shapes do not match, or the geometry is unknown.
    """
    _check_options(num_classes, smoothing, k, temperature, grid)
    _check_shapes(scores, classes, view, map_view)
    scores, classes = _best(scores, classes, k, temperature)
    classes = classes.to(torch.int32)
    _check_classes(classes, num_classes)
    to_map = _to_map(view, map_view, geometry)

    ids, values = _entries(scores, classes, to_map, (1, 1))
    z_BC = scores.new_zeros(len(scores), num_classes).scatter_add_(1, ids[:, 0].long(), values[:, 0])
    cls = _dense_softmax(z_BC, smoothing)
    tokens = _sparse_softmax(*_entries(scores, classes, to_map, grid), num_classes, smoothing)
    return TokenTargets(cls, tokens, smoothing)


@torch.no_grad()
def image_targets(
    labels: Tensor, grid: tuple[int, int] | None, num_classes: int, smoothing: float = 0.0
) -> TokenTargets:
    """Smoothed one-hot targets from image labels int64 [B]; every token of `grid` (rows, cols) gets a copy.

    Raises:
        UserError: a label is outside [0, C) (checked on CPU only), or an argument is out of range.
    """
    _check_options(num_classes, smoothing, grid=grid)
    check_labels(labels, num_classes)

    def one_hot(num_tokens: int) -> SparseTarget:
        ids = labels[:, None, None].expand(-1, num_tokens, 1)
        background = torch.full(ids.shape[:2], smoothing / num_classes, device=labels.device)
        return SparseTarget(ids, torch.full_like(ids, 1 - smoothing, dtype=background.dtype), background, num_classes)

    tokens = None if grid is None else one_hot(grid[0] * grid[1])
    return TokenTargets(one_hot(1), tokens, smoothing)


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Raises `UserError` for an image label outside [0, C); labels on a GPU are not checked."""
    stray = _stray(labels, num_classes)
    if stray is not None:
        raise UserError(
            f'An image has label {stray} but there are {num_classes} classes: set num_classes to the class count of '
            'the images, or leave out images without a class.'
        )


@torch.no_grad()
def distillation_targets(
    scores: Tensor,
    classes: Tensor,
    num_classes: int,
    smoothing: float = 0.0,
    k: int | None = None,
    temperature: float = 1.0,
) -> TokenTargets:
    """The annotator's soft label of the image, for the class token alone: the softmax of the map's mean score.

    Args:
        scores: [B, k, S, S].
        classes: [B, k, S, S].
        num_classes: C.
        smoothing, k, temperature: as in `token_targets`.

    Raises:
        UserError: a class id is outside [0, C) (checked on CPU only), or an argument is out of range.
    """
    _check_options(num_classes, smoothing, k, temperature)
    scores, classes = _best(scores, classes, k, temperature)
    classes = classes.long()
    _check_classes(classes, num_classes)
    cells = scores.shape[-2] * scores.shape[-1]
    z_BC = scores.new_zeros(len(scores), num_classes).scatter_add_(1, classes.flatten(1), scores.flatten(1) / cells)
    return TokenTargets(_dense_softmax(z_BC, smoothing), None, smoothing)


def _best(scores: Tensor, classes: Tensor, k: int | None, temperature: float) -> tuple[Tensor, Tensor]:
    """The first k entries of each cell; scores are at least float32 and divided by the temperature."""
    scores = scores[:, :k].to(torch.promote_types(scores.dtype, torch.float32))
    return scores if temperature == 1 else scores / temperature, classes[:, :k]


def _check_shapes(scores: Tensor, classes: Tensor, view: Tensor, map_view: Tensor | None) -> None:
    if scores.ndim != 4 or scores.shape != classes.shape:
        raise ValueError(
            f'Scores and classes must both be [B, k, S, S], got {list(scores.shape)} and {list(classes.shape)}.'
        )
    for name, matrix in (('view', view), ('map_view', map_view)):
        if matrix is not None and matrix.shape != (len(scores), 2, 3):
            raise ValueError(f'{name} must be [B, 2, 3] with B = {len(scores)}, got {list(matrix.shape)}.')


def _check_classes(classes: Tensor, num_classes: int) -> None:
    stray = _stray(classes, num_classes)
    if stray is not None:
        raise UserError(
            f'The score maps name class {stray} but there are {num_classes} classes: '
            'use the label store that was made with these classes, or set num_classes to its class count.'
        )


def _stray(ids: Tensor, num_classes: int) -> int | None:
    """A class id outside [0, C), or None. Always None on a GPU, because checking would synchronise."""
    if ids.device.type != 'cpu' or not ids.numel():
        return None
    low, high = (int(value) for value in ids.aminmax())
    return low if low < 0 else high if high >= num_classes else None


def _check_options(
    num_classes: int,
    smoothing: float,
    k: int | None = None,
    temperature: float = 1.0,
    grid: tuple[int, int] | None = None,
) -> None:
    # `not ...`, so that NaN is refused too: all its comparisons are false
    if not 0 <= smoothing < 1:
        raise UserError(f'smoothing is {smoothing}: give a number from 0 on and below 1.')
    if not 0 < temperature < math.inf:
        raise UserError(f'temperature is {temperature}: give a number above 0.')
    for name, count in (('num_classes', num_classes), ('k', k), *(('grid', side) for side in grid or ())):
        if count is not None and not count >= 1:
            raise UserError(f'{name} is {grid if name == "grid" else count}: give whole numbers from 1 on.')


def _to_map(view: Tensor, map_view: Tensor | None, geometry: Geometry) -> Tensor:
    """Views from the model input to the score map, float64 [B, 2, 3] on the CPU."""
    view = view.to('cpu', torch.float64)
    if geometry not in ('exact', 'released'):
        raise ValueError(f"geometry is 'exact' or 'released', got {geometry!r}.")
    if geometry == 'released':
        view = _released_view(view)
    elif map_view is not None:
        view = compose(invert(map_view.to('cpu', torch.float64)), view)
    if not view.isfinite().all():
        raise UserError('A View of this batch is not finite, or a map_view has no area: give crops of an image.')
    return view


def _released_view(view: Tensor) -> Tensor:
    """The View that the 2021 release uses: it exchanges x and y of the crop's offset and size in the mirrored map."""
    extent, offset = view[:, [0, 1], [0, 1]], view[..., 2]
    if (view[:, [0, 1], [1, 0]].abs() > _SLACK).any():
        raise UserError(
            "geometry='released' allows only crops and flips, but a View of this batch is sheared or rotated: "
            "use geometry='exact' or an augmentation without shear and rotation."
        )
    mirrored = extent < 0
    extent, offset = extent.abs().flip(1), torch.where(mirrored, 1 - offset, offset).flip(1)
    extent, offset = torch.where(mirrored, -extent, extent), torch.where(mirrored, 1 - offset, offset)
    return torch.cat([torch.diag_embed(extent), offset[..., None]], -1)


def _entries(scores: Tensor, classes: Tensor, to_map: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Class ids and weighted scores of all cells under each token: int32 and float [B, N, cells * k], ids repeated."""
    cells, weights = _cell_weights(to_map, grid, scores.shape[-2:], scores.device, scores.dtype)
    batch, k = scores.shape[:2]
    cells = cells + torch.arange(batch, device=cells.device)[:, None, None] * scores[0, 0].numel()

    def rows(maps: Tensor) -> Tensor:
        return maps.flatten(2).transpose(1, 2).reshape(-1, k).index_select(0, cells.flatten()).view(*cells.shape, k)

    return rows(classes).flatten(2), rows(scores).mul_(weights[..., None]).flatten(2)


def _cell_weights(
    to_map: Tensor, grid: tuple[int, int], map_size: tuple[int, int], device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The cells that each token reads, and their weights in the token's mean.

    Args:
        to_map: float64 [B, 2, 3] on the CPU, from the model input to the map.
        grid: (rows, cols) of tokens.
        map_size: (height, width) of the map in cells.
        device: of the result.
        dtype: of the weights.

    Returns:
        Flat cell indices, int64 [B, N, W], and weights [B, N, W] that sum to 1, over a window of W cells that is large
        enough for every token of the batch.
    """
    size = torch.tensor([map_size[1], map_size[0]])
    in_cells = to_map * size[:, None]
    # The two sides of a token's box in cells, [B, side, xy], the side along u first.
    sides = in_cells[..., :2].transpose(1, 2) / torch.tensor([grid[1], grid[0]])[:, None]
    counts = sample_counts(sides)
    span = (sides.abs() * (1 - 1 / counts[..., None])).sum(1)
    window = torch.minimum((span.amax(0) * (1 - _SLACK)).ceil().long() + 2, size)
    if counts.max() > MAX_SAMPLES:
        raise UserError(
            f'A token of this batch spans {counts.max():.0f} cells, many more than its score map has: give a smaller '
            'crop, or leave out images that are thousands of times as long as wide.'
        )
    max_u, max_v = counts.amax(0).long().tolist()

    limits = torch.cat([size - 1, size - window]).expand(len(to_map), -1)
    plan = torch.cat([in_cells[..., 2] - 0.5, sides.flatten(1), span, counts, limits], 1).to(dtype)
    plan = plan.to(device, non_blocking=True)  # a blocking copy would wait for all queued kernels
    origin, side_u, side_v, span, counts, last_cell, last_start = plan[..., None].split(2, 1)
    count_u, count_v = counts.split(1, 1)
    row = torch.arange(grid[0], device=device, dtype=dtype).repeat_interleave(grid[1])
    col = torch.arange(grid[1], device=device, dtype=dtype).repeat(grid[0])

    # From here on axis 1 is (x, y): [B, 2, N], with samples [B, 2, N, P].
    corner = origin + side_u * col + side_v * row
    first = (corner + (side_u + side_v - span) / 2).clamp(min=0).minimum(last_cell).floor().minimum(last_start)
    x_BNW, y_BNW = (first[:, i, :, None] + torch.arange(n, device=device) for i, n in enumerate(window.tolist()))
    p = torch.arange(max_u, device=device)
    weights = corner.new_zeros(*y_BNW.shape, x_BNW.shape[-1])
    for q in range(max_v):
        position = (corner + side_v * (q + 0.5) / count_v)[..., None] + (side_u * (p + 0.5) / count_u)[:, :, None]
        position = position.clamp(min=0).minimum(last_cell[..., None])
        share = ((p < count_u) & (q < count_v)) / (count_u * count_v)
        tent_x, tent_y = _tent(position[:, 0], x_BNW), _tent(position[:, 1], y_BNW) * share[..., None]
        # in float64, which autocast and TF32 leave alone
        weights += tent_y.double().transpose(2, 3) @ tent_x.double()
    cells = y_BNW[..., :, None] * map_size[1] + x_BNW[..., None, :]
    return cells.flatten(2).long(), weights.flatten(2)


def sample_counts(sides: Tensor) -> Tensor:
    """Number of samples along each side of a box, [...], from the sides in map cells, float64 [..., (x, y)]."""
    return (sides.norm(dim=-1) * (1 - _SLACK)).ceil().clamp(min=1)


def _tent(position: Tensor, cells: Tensor) -> Tensor:
    """Linear weights [B, N, P, W] of `cells` [B, N, W] for samples at `position` [B, N, P]."""
    return (1 - (position[..., None] - cells[:, :, None]).abs()).clamp(min=0)


def _dense_softmax(z_BC: Tensor, smoothing: float) -> SparseTarget:
    """Softmax and smoothing of one dense target per image, `z_BC` [B, C]."""
    batch, num_classes = z_BC.shape
    excess = z_BC.softmax(1) * (1 - smoothing + smoothing / num_classes)
    ids = torch.arange(num_classes, device=z_BC.device).expand(batch, -1)
    background = z_BC.new_full((batch, 1), smoothing / num_classes)
    return SparseTarget(ids[:, None], excess[:, None], background, num_classes)


def _sparse_softmax(ids: Tensor, values: Tensor, num_classes: int, smoothing: float) -> SparseTarget:
    """Softmax over all classes, then smoothing; `values` [B, N, M] of equal `ids` add up, unlisted classes score 0."""
    ids, order = _sorted(ids, num_classes)
    values = values.gather(-1, order)
    is_next = torch.zeros_like(ids, dtype=torch.bool)
    torch.ne(ids[..., 1:], ids[..., :-1], out=is_next[..., 1:])
    slot = is_next.cumsum(-1)
    slots = (*ids.shape[:-1], min(ids.shape[-1], num_classes))
    z = values.new_zeros(slots).scatter_add_(-1, slot, values)
    ids = ids.new_zeros(slots).scatter_(-1, slot, ids).long()

    top = z.amax(-1).clamp(min=0)
    rest = (-top).exp()
    e = z.sub_(top[..., None]).exp_().sub_(rest[..., None])
    share = (1 - smoothing + smoothing / num_classes) / (e.sum(-1) + num_classes * rest)
    return SparseTarget(ids, e.mul_(share[..., None]), rest * share + smoothing / num_classes, num_classes)


def _sorted(ids: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """`ids.sort(-1)`; on CPU, packs each id with its position into one integer, which NumPy sorts with SIMD."""
    if ids.device.type != 'cpu':
        return ids.sort(-1)
    bits = (ids.shape[-1] - 1).bit_length()
    dtype = torch.int32 if num_classes << bits < 2**31 else torch.int64
    packed = (ids.to(dtype) << bits) | torch.arange(ids.shape[-1], dtype=dtype)
    packed.numpy().sort(-1)
    return packed >> bits, (packed & ((1 << bits) - 1)).long()
