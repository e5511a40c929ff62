"""Dense targets by the definition: one bilinear look-up after another, and RoIAlign where it applies."""

import math

import torch
from torch import Tensor
from torchvision.ops import roi_align


def dense_maps(
    scores: Tensor, classes: Tensor, num_classes: int, k: int | None = None, temperature: float = 1.0
) -> Tensor:
    """Score of every class in every cell, float64 [B, C, H, W]; 0 where it is not among the top k."""
    batch, listed, height, width = scores.shape
    maps = torch.zeros(batch, num_classes, height, width, dtype=torch.float64)
    for entry in range(listed if k is None else k):
        maps.scatter_add_(1, classes[:, entry : entry + 1].long(), scores[:, entry : entry + 1].double() / temperature)
    return maps


def bilinear(dense_map: Tensor, x: float, y: float) -> Tensor:
    """Scores [C] at the position (x, y) in [0, 1]^2 of a map [C, H, W]; outside, the nearest cell answers."""
    height, width = dense_map.shape[1:]
    x = min(max(x * width - 0.5, 0), width - 1)
    y = min(max(y * height - 0.5, 0), height - 1)
    left, top = math.floor(x), math.floor(y)
    right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
    upper = dense_map[:, top, left] * (left + 1 - x) + dense_map[:, top, right] * (x - left)
    lower = dense_map[:, bottom, left] * (left + 1 - x) + dense_map[:, bottom, right] * (x - left)
    return upper * (top + 1 - y) + lower * (y - top)


def token_scores(dense_map: Tensor, matrix: Tensor, grid: tuple[int, int]) -> Tensor:
    """Mean scores [rows * cols, C] of the tokens' boxes, `matrix` [2, 3] leading from the model input to the map."""
    height, width = dense_map.shape[1:]
    (a, b, x0), (c, d, y0) = matrix.tolist()
    rows, cols = grid
    num_u = max(1, math.ceil(math.hypot(a * width, c * height) / cols * (1 - 1e-9)))
    num_v = max(1, math.ceil(math.hypot(b * width, d * height) / rows * (1 - 1e-9)))
    tokens = []
    for row in range(rows):
        for col in range(cols):
            total = torch.zeros(len(dense_map), dtype=torch.float64)
            for q in range(num_v):
                for p in range(num_u):
                    u = (col + (p + 0.5) / num_u) / cols
                    v = (row + (q + 0.5) / num_v) / rows
                    total += bilinear(dense_map, a * u + b * v + x0, c * u + d * v + y0)
            tokens.append(total / (num_u * num_v))
    return torch.stack(tokens)


def soft_targets(scores: Tensor, smoothing: float) -> Tensor:
    """Softmax over the last axis and the release's smoothing."""
    num_classes = scores.shape[-1]
    return scores.softmax(-1) * (1 - smoothing + smoothing / num_classes) + smoothing / num_classes


def token_targets(
    scores: Tensor,
    classes: Tensor,
    to_map: Tensor,
    grid: tuple[int, int],
    num_classes: int,
    smoothing: float = 0.0,
    k: int | None = None,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Dense targets [B, C] and [B, N, C] in float64; `to_map` [B, 2, 3] leads from the model input to the map."""
    maps = dense_maps(scores, classes, num_classes, k, temperature)
    cls = torch.cat([token_scores(m, matrix, (1, 1)) for m, matrix in zip(maps, to_map, strict=True)])
    tokens = torch.stack([token_scores(m, matrix, grid) for m, matrix in zip(maps, to_map, strict=True)])
    return soft_targets(cls, smoothing), soft_targets(tokens, smoothing)


def roi_align_targets(
    scores: Tensor, classes: Tensor, crop_tlhw: Tensor, grid: tuple[int, int], num_classes: int, smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The same for crops (top, left, height, width) [B, 4], by torchvision's RoIAlign."""
    maps = dense_maps(scores, classes, num_classes)
    top, left, height, width = crop_tlhw.double().unbind(1)
    across, down = maps.shape[3], maps.shape[2]
    edges = torch.stack([left * across, top * down, (left + width) * across, (top + height) * down], 1)
    boxes = torch.cat([torch.arange(len(maps), dtype=torch.float64)[:, None], edges], 1)
    cls = roi_align(maps, boxes, (1, 1), aligned=True).flatten(1)
    tokens = roi_align(maps, boxes, grid, aligned=True).flatten(2).transpose(1, 2)
    return soft_targets(cls, smoothing), soft_targets(tokens, smoothing)
