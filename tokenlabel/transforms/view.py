"""View: the part of the source image that a model input shows.

Resize, crop, flip, shear, rotate and translate are affine maps, so one 2x3 matrix per sample is enough:
`source_xy = matrix @ (u, v, 1)`. (u, v) is in [0, 1]^2 over the model input (u right, v down), `source_xy` in [0, 1]^2
over the whole source image. Both squares are measured edge to edge: pixel i of n covers [i / n, (i + 1) / n].
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor


@dataclass(frozen=True, eq=False)
class View:
    """Affine map from the model input to the source image.

    Attributes:
        matrix: float64 [2, 3], read-only.
    """

    matrix: NDArray[np.float64]

    def __post_init__(self):
        matrix = np.array(self.matrix, dtype=np.float64)
        if matrix.shape != (2, 3):
            raise ValueError(f'A View is a 2x3 matrix, got the shape {matrix.shape}.')
        matrix.flags.writeable = False
        object.__setattr__(self, 'matrix', matrix)

    @classmethod
    def identity(cls) -> 'View':
        """The whole image, resized to the input."""
        return cls([[1, 0, 0], [0, 1, 0]])

    @classmethod
    def crop(cls, left: float, top: float, width: float, height: float) -> 'View':
        """A rectangle, in fractions of the image."""
        return cls([[width, 0, left], [0, height, top]])

    @classmethod
    def flip(cls) -> 'View':
        """The image mirrored left to right."""
        return cls([[-1, 0, 1], [0, 1, 0]])

    @classmethod
    def affine(cls, matrix: ArrayLike) -> 'View':
        """Any 2x3 matrix in fractions of the image."""
        return cls(matrix)

    @classmethod
    def pixel_affine(cls, matrix: ArrayLike, size: tuple[int, int]) -> 'View':
        """A map between the pixel coordinates of two images of the same `size`, (width, height).

        Args:
            matrix: [2, 3], `source = matrix @ (x, y, 1)` in pixels measured from the image's corner (the centre of the
                first pixel is at 0.5), as in Pillow's `Image.transform` with `AFFINE`.
            size: (width, height) in pixels.
        """
        width, height = size
        from_fractions = np.diag([width, height, 1])
        return cls(np.diag([1 / width, 1 / height]) @ np.asarray(matrix, dtype=np.float64) @ from_fractions)

    def __matmul__(self, inner: 'View') -> 'View':
        """Composition: the View of the part `inner` of what `self` shows, `(self @ inner)(uv) = self(inner(uv))`."""
        return View(self.matrix @ np.vstack([inner.matrix, (0, 0, 1)]))

    def inverse(self) -> 'View':
        """The map from source image to input. Raises `numpy.linalg.LinAlgError` if the View has no area."""
        return View(np.linalg.inv(np.vstack([self.matrix, (0, 0, 1)]))[:2])

    def apply(self, points: ArrayLike) -> NDArray[np.float64]:
        """Source positions [..., 2] of the input positions `points` [..., 2], (x, y) in fractions."""
        return np.asarray(points) @ self.matrix[:, :2].T + self.matrix[:, 2]

    def tensor(self) -> Tensor:
        """The matrix as float64 [2, 3]."""
        return torch.tensor(self.matrix)


def compose(a: Tensor, b: Tensor) -> Tensor:
    """`a @ b` of batched Views [B, 2, 3]: `b` is applied first. Without matmul, so that autocast does not round it."""
    linear = (a[:, :, :2, None] * b[:, None]).sum(2)
    return torch.cat([linear[..., :2], linear[..., 2:] + a[..., 2:]], -1)


def invert(view: Tensor) -> Tensor:
    """Inverse of batched Views [B, 2, 3]."""
    (a, b, x), (c, d, y) = (row.unbind(-1) for row in view.unbind(-2))
    determinant = a * d - b * c
    rows = [d, -b, b * y - d * x, -c, a, c * x - a * y]
    return (torch.stack(rows, -1) / determinant[..., None]).unflatten(-1, (2, 3))
