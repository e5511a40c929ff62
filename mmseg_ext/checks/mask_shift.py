"""Whether masks lie shifted against their images: where classes meet, images have edges.

For each offset, the edges of the image under the mask's boundaries, moved by it, are added up; the greatest sum tells
how the mask has to move. One image says little, as not every boundary is an edge. Masks of a data set that were made
with one mistake (a crop, a border, a resize) all say the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmseg_ext.datasets.mask_classes import IGNORED

REACH = 16  # pixels, the largest shift that is looked for
NUM_LOOKED_AT = 48  # images of a split
LARGEST_SIDE = 1024  # pixels of an image that are looked at, in its middle
FEWEST_IMAGES = 8  # which have boundaries, to say anything
SMALLEST_SHIFT = 2  # pixels; less is a matter of how boundaries are drawn
SHARE_THAT_AGREES = 0.9  # of the images, for which the shifted mask fits better
LEAST_EDGE = 0.04  # of mean rank over what it is at most offsets; of masks that fit, CamVid has 0.14 to 0.16
GAIN = 1.25  # by which edges under the shifted boundaries exceed those under the boundaries as they are


@dataclass(frozen=True)
class Shift:
    """How masks fit their images better.

    Attributes:
        right, down: Pixels by which the masks have to move, less than `REACH`.
        agreeing: In how many images they then fit better.
        num_images: How many were looked at.
    """

    right: int
    down: int
    agreeing: int
    num_images: int

    def __str__(self) -> str:
        ways = ((self.right, 'right', 'left'), (self.down, 'down', 'up'))
        return ' and '.join(f'{abs(step)} pixels {ahead if step > 0 else back}' for step, ahead, back in ways if step)


def edge_sums(image: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
    """Edges of an image under the boundaries of its mask, for each offset.

    The strength of an edge is its rank among all pixels of the image, in [0, 1], so that a few strong ones do not count
    for all; the average over the image is taken off.

    Args:
        image: Numbers [H, W, C].
        labels: Classes [H, W], with 255 where there is none.

    Returns:
        Mean over the boundaries, float64 [2 * REACH + 1, 2 * REACH + 1]: entry [REACH + down, REACH + right] for the
        mask moved by these pixels. None where the image is too small or the mask has no boundary.
    """
    height, width = labels.shape
    if min(height, width) < 4 * REACH:
        return None
    rows, columns = (slice(max(0, (side - LARGEST_SIDE) // 2), (side + LARGEST_SIDE) // 2) for side in (height, width))
    grey, labels = image[rows, columns].astype(np.float32).mean(2), labels[rows, columns]
    boundary = np.zeros(labels.shape, bool)
    boundary[:-1] |= _differ(labels[:-1], labels[1:])
    boundary[:, :-1] |= _differ(labels[:, :-1], labels[:, 1:])
    inner = np.zeros_like(boundary)
    inner[REACH:-REACH, REACH:-REACH] = boundary[REACH:-REACH, REACH:-REACH]
    if not inner.any():
        return None
    strength = np.zeros_like(grey)
    strength[:-1] = abs(np.diff(grey, axis=0))
    strength[:, :-1] = np.maximum(strength[:, :-1], abs(np.diff(grey, axis=1)))
    _, inverse, counts = np.unique(strength, return_inverse=True, return_counts=True)
    ranks = ((np.cumsum(counts) - counts / 2) / strength.size - 0.5)[inverse].reshape(strength.shape)
    spectrum = np.fft.rfft2(ranks) * np.conj(np.fft.rfft2(inner))
    sums = np.fft.irfft2(spectrum, ranks.shape) / inner.sum()
    around = np.arange(-REACH, REACH + 1)
    return sums[np.ix_(around, around)]


def shift_of(sums: Sequence[np.ndarray]) -> Shift | None:
    """The shift that masks agree on; None where they fit as they are, or do not agree.

    Args:
        sums: Of `edge_sums`, one for each image.
    """
    if len(sums) < FEWEST_IMAGES:
        return None
    stacked = np.stack(sums)
    mean = stacked.mean(0)
    down, right = np.unravel_index(mean.argmax(), mean.shape)
    own, best = mean[REACH, REACH], mean[down, right]
    agreeing = int((stacked[:, down, right] > stacked[:, REACH, REACH]).sum())
    shift = Shift(int(right) - REACH, int(down) - REACH, agreeing, len(sums))
    length, base = max(abs(shift.right), abs(shift.down)), np.median(mean)
    clear = best - base >= LEAST_EDGE and best - base >= GAIN * (own - base) and SMALLEST_SHIFT <= length < REACH
    return shift if clear and agreeing >= SHARE_THAT_AGREES * len(sums) else None


def _differ(labels: np.ndarray, others: np.ndarray) -> np.ndarray:
    return (labels != others) & (labels != IGNORED) & (others != IGNORED)
