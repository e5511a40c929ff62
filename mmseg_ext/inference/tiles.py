"""Tiled segmentation: the input range of each tile of the label map, and the labels from its logits."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

# Live tensors of a band's size during its interpolation.
BAND_COPIES = 4


@dataclass(frozen=True)
class Interpolation:
    """Bilinear interpolation along one axis: output i is `(1 - weight) * input[lower] + weight * input[upper]`.

    As `torch.nn.functional.interpolate`, but computes any part of the output from the part of the input it needs.

    Attributes:
        lower, upper: int64 [outputs].
        weight: float32 [outputs], in [0, 1).
    """

    lower: Tensor
    upper: Tensor
    weight: Tensor

    @classmethod
    def between(cls, inputs: int, outputs: int, align_corners: bool) -> 'Interpolation':
        """Interpolation between two sizes.

        Args:
            inputs: pixels of the input.
            outputs: pixels of the output.
            align_corners: align the centres of the outer pixels instead of their outer edges.
        """
        position = torch.arange(outputs, dtype=torch.float32)
        if align_corners:
            source = position * ((inputs - 1) / max(outputs - 1, 1))
        else:
            source = ((position + 0.5) * (inputs / outputs) - 0.5).clamp(min=0)
        lower = source.long().clamp(max=inputs - 1)
        weight = source - lower
        return cls(lower, (lower + (weight > 0)).clamp(max=inputs - 1), weight)

    def needed(self, start: int, stop: int) -> tuple[int, int]:
        """Range (start, stop) of the inputs that the outputs `start` to `stop` need; stops are excluded."""
        return int(self.lower[start]), int(self.upper[stop - 1]) + 1

    def apply(self, x: Tensor, dim: int, first: int, start: int, stop: int) -> Tensor:
        """The outputs `start` to `stop` along dimension `dim` of `x`, which holds the inputs from `first` on."""
        if not self.weight.any() and len(self.lower) == int(self.upper[-1]) + 1:  # as many outputs as inputs
            return x.narrow(dim, start - first, stop - start)
        shape = [1] * x.ndim
        shape[dim] = stop - start
        weight = self.weight[start:stop].to(x.device).view(shape)
        lower = x.index_select(dim, (self.lower[start:stop] - first).to(x.device))
        upper = x.index_select(dim, (self.upper[start:stop] - first).to(x.device))
        return lower.lerp_(upper, weight)


@dataclass(frozen=True)
class Tile:
    """A rectangle of the label map and the rectangle of the model's input that it needs.

    Attributes:
        rows, cols: start and stop in the label map.
        input_rows, input_cols: start and stop in the resized and padded image.
    """

    rows: tuple[int, int]
    cols: tuple[int, int]
    input_rows: tuple[int, int]
    input_cols: tuple[int, int]


@dataclass(frozen=True)
class WholeTiles:
    """Input range of a tile for whole-image inference: the tile and a margin around it.

    Attributes:
        margin: pixels of context on each side.
        align: tiles start at multiples of this, a multiple of the patch size, so that patches stay in place.
    """

    margin: int
    align: int

    def reach(self, start: int, stop: int, size: int) -> tuple[int, int]:
        """Start and stop of the input for the pixels `start` to `stop` of `size`."""
        start = max(start - self.margin, 0) // self.align * self.align
        return start, min(-(-(stop + self.margin) // self.align) * self.align, size)


@dataclass(frozen=True)
class SlidingTiles:
    """Input range of a tile for sliding windows: all windows that cover its pixels in the whole image.

    The labels therefore equal those of the whole image up to rounding. A last window that would extend beyond the image
    is shifted inwards.

    Attributes:
        crop: height or width of a window in pixels.
        stride: distance between windows in pixels.
    """

    crop: int
    stride: int

    def reach(self, start: int, stop: int, size: int) -> tuple[int, int]:
        """Start and stop of the input for the pixels `start` to `stop` of `size`."""
        last = max(size - self.crop, 0)
        first = max(start - self.crop, -1) // self.stride + 1  # the first window that ends after `start`
        final = (stop - 1) // self.stride  # the last that begins before `stop`, if it is not shifted
        begin = min(first * self.stride, last)
        end = min(final * self.stride, last) + self.crop
        # the shifted last window may also begin before `stop`
        return begin, min(size if last < stop else end, size)


def tiles(
    pieces: tuple[int, int],
    interpolations: tuple[Interpolation, Interpolation],
    reaches: tuple[WholeTiles | SlidingTiles, WholeTiles | SlidingTiles],
    input_size: tuple[int, int],
) -> Iterator[Tile]:
    """Rectangles that cover the label map once.

    Args:
        pieces: number of tiles downwards and across.
        interpolations: from the resized image's rows and columns to the label map's.
        reaches: which input rows and columns a tile takes.
        input_size: height and width of the resized and padded image.
    """
    axes = []
    for number, interpolation, reach, size in zip(pieces, interpolations, reaches, input_size, strict=True):
        outputs = len(interpolation.lower)
        edges = sorted({outputs * i // number for i in range(number + 1)})
        spans = list(itertools.pairwise(edges))
        axes.append([(span, reach.reach(*interpolation.needed(*span), size)) for span in spans])
    for rows, input_rows in axes[0]:
        for cols, input_cols in axes[1]:
            yield Tile(rows, cols, input_rows, input_cols)


def labels_of(
    logits: Tensor,
    tile: Tile,
    interpolations: tuple[Interpolation, Interpolation],
    band_bytes: int,
    threshold: float | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """The best class of each pixel of a tile, band by band, so that full-size logits are never stored as a whole.

    Args:
        logits: [C, h, w], of the tile's input, without padding.
        tile: the tile.
        interpolations: from the resized image's rows and columns to the label map's.
        band_bytes: memory of a band's logits; a band has at least one row.
        threshold: for a binary model with one logit, the probability above which the label is 1.

    Yields:
        The first row of a band in the label map, and int64 [rows, cols].
    """
    down, across = interpolations
    cols = across.needed(*tile.cols)
    logits = logits[:, :, cols[0] - tile.input_cols[0] : cols[1] - tile.input_cols[0]]
    (start, stop), width = tile.rows, tile.cols[1] - tile.cols[0]
    row_bytes = len(logits) * width * logits.element_size() * BAND_COPIES
    rows_in, rows_out = down.needed(start, stop), stop - start
    # if the labels are smaller than the input, each row needs several input rows
    row_bytes *= max(1, -(-(rows_in[1] - rows_in[0]) // rows_out))
    height = max(band_bytes // row_bytes, 1)
    for row in range(start, stop, height):
        end = min(row + height, stop)
        first, last = down.needed(row, end)
        band = logits[:, first - tile.input_rows[0] : last - tile.input_rows[0]]
        band = across.apply(band, 2, cols[0], *tile.cols)
        band = down.apply(band, 1, first, row, end)
        yield row, band.argmax(0) if threshold is None else (band[0].sigmoid() > threshold).long()
