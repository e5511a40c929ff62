"""Finds the spatial locations in a timm backbone's features and checks that its head treats all of them alike."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn


class NoLocations(ValueError):
    """A head cannot be applied to the features location by location; the message is the reason."""


class Layout(NamedTuple):
    """How locations are laid out in features.

    Attributes:
        kind: 'NCHW', 'NHWC' or 'tokens'.
        rows, columns: size of the grid of locations.
        num_prefix: number of prefix tokens before the patch tokens.
    """

    kind: str
    rows: int
    columns: int
    num_prefix: int

    def cells(self, features: Tensor) -> Tensor:
        """Vectors [B, rows * columns, D] of the locations, row by row; also works for features of another size."""
        if self.kind == 'tokens':
            return features[:, self.num_prefix :]
        if self.kind == 'NHWC':
            return features.flatten(1, 2)
        return features.flatten(2).transpose(1, 2)

    def with_cells(self, features: Tensor, cells: Tensor) -> Tensor:
        """A copy of `features` with the vectors `cells` [B, rows * columns, D] at the locations."""
        if self.kind == 'tokens':
            return torch.cat([features[:, : self.num_prefix], cells], dim=1)
        if self.kind == 'NHWC':
            return cells.reshape(features.shape)
        return cells.transpose(1, 2).reshape(features.shape)

    def as_maps(self, vectors: Tensor, side: int = 1) -> Tensor:
        """Features of M images, `side` x `side` cells each, that repeat the image's vector from `vectors` [M, D].

        In a token model the vector also replaces the prefix tokens.
        """
        if self.kind == 'tokens':
            return vectors[:, None].expand(-1, self.num_prefix + side * side, -1)
        if self.kind == 'NHWC':
            return vectors[:, None, None].expand(-1, side, side, -1)
        return vectors[:, :, None, None].expand(-1, -1, side, side)


def layout_of(model: nn.Module, features: Tensor, image_size: tuple[int, int]) -> Layout:
    """The layout of `features`, the output of `model.forward_features` for images of this (height, width) in pixels.

    Raises:
        NoLocations: the features are not one feature map of the image.
    """
    if not isinstance(features, Tensor):
        raise NoLocations('its features are not one feature map')
    height, width = image_size
    if features.ndim == 4:
        kind = 'NHWC' if getattr(model, 'output_fmt', 'NCHW') == 'NHWC' else 'NCHW'
        rows, columns = features.shape[1:3] if kind == 'NHWC' else features.shape[2:]
        if height == width and rows != columns:
            raise NoLocations(f'its feature map is {rows}x{columns} for a square image')
        return Layout(kind, rows, columns, 0)
    if features.ndim != 3:
        raise NoLocations('its features have no spatial layout')
    num_prefix = _num_prefix(model, features.shape[1], image_size)
    num_patches = features.shape[1] - num_prefix
    if num_patches <= 0:
        raise NoLocations('its features are the class token alone')
    grid = grid_of(num_patches, image_size)
    if grid is None:
        shape = 'a square grid' if height == width else f'a grid of the shape of {height}x{width} pixels'
        raise NoLocations(f'its {num_patches} patch tokens are not {shape}')
    return Layout('tokens', *grid, num_prefix)


def grid_of(num_tokens: int, image_size: tuple[int, int]) -> tuple[int, int] | None:
    """(rows, columns) of `num_tokens` square tokens of an image of this (height, width); None if they form no grid."""
    height, width = image_size
    rows, columns = round(math.sqrt(num_tokens * height / width)), round(math.sqrt(num_tokens * width / height))
    return (rows, columns) if rows * columns == num_tokens else None


def check_parts(model: nn.Module) -> None:
    """Checks that a model has `forward_features` and `forward_head`, as timm's classifiers do.

    Raises:
        NoLocations: one of the two methods is missing.
    """
    for method in ('forward_features', 'forward_head'):
        if not hasattr(model, method):
            raise NoLocations(f'it has no {method}')


def check_cover(model: nn.Module, layout: Layout, image_size: tuple[int, int]) -> None:
    """Checks that the feature map covers the image; convolutions without padding leave out its border.

    Raises:
        NoLocations: the map ends a cell or more before the image does.
    """
    info = getattr(model, 'feature_info', None)
    cell = info[-1].get('reduction', 0) if isinstance(info, list) and info else 0
    sides = zip(image_size, (layout.rows, layout.columns), strict=True)
    if layout.kind == 'NCHW' and cell and any(size - side * cell >= cell for size, side in sides):
        height, width = image_size
        raise NoLocations(f'its convolutions have no padding and leave out the border of {height}x{width} pixels')


def check_head(head: Callable[[Tensor], Tensor], features: Tensor, layout: Layout) -> None:
    """Checks on the features of one image that the head is a function of the pooled locations.

    Raises:
        NoLocations: the head depends on the order or the number of the locations.
    """
    cells = layout.cells(features)
    if not close(head(features), head(layout.with_cells(features, cells.flip(1)))):
        raise NoLocations('its head depends on the order of the locations')
    one_cell, many_cells = layout.as_maps(cells[:, 0]), layout.as_maps(cells[:, 0], layout.rows)
    if not close(head(one_cell), head(many_cells)):
        raise NoLocations('its head depends on the number of locations')


def close(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors differ by at most a thousandth of the largest value of `one`."""
    return bool((one - other).abs().max() <= 1e-3 * one.abs().max().clamp(min=1e-6))


def model_name(model: nn.Module) -> str:
    """timm's name of the architecture, or else the name of the class."""
    return (getattr(model, 'pretrained_cfg', None) or {}).get('architecture') or type(model).__name__


def _num_prefix(model: nn.Module, num_tokens: int, image_size: tuple[int, int]) -> int:
    """Number of prefix tokens before the patches: as the model says, or else as a grid of patches needs."""
    if hasattr(model, 'num_prefix_tokens'):
        return model.num_prefix_tokens
    cls_token = getattr(model, 'cls_token', None)
    if cls_token is not None:
        return cls_token.shape[1]
    return int(grid_of(num_tokens, image_size) is None and grid_of(num_tokens - 1, image_size) is not None)
