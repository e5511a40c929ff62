"""Sliding windows over images: their positions, their batches, and the mean of their logits."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import TypeVar

import torch
from mmseg.models.utils import resize
from torch import Tensor

Sample = TypeVar('Sample')


def window_starts(length: int, crop: int, stride: int) -> list[int]:
    """First pixels of the windows along one axis; the last window is shifted so that it ends with the image."""
    count = max(length - crop + stride - 1, 0) // stride + 1
    return [max(min(index * stride, length - crop), 0) for index in range(count)]


def overlaps(starts: list[int], crop: int) -> Iterator[tuple[int, int, int]]:
    """Ranges `begin, end, count` along one axis that are covered by `count` > 1 windows."""
    for begin, end in pairwise(sorted({*starts, *(start + crop for start in starts)})):
        count = sum(start <= begin < start + crop for start in starts)
        if count > 1:
            yield begin, end, count


class WindowedImage:
    """One image, its windows, and their logits at the head's resolution.

    Full-size logits are many times larger, so they are computed class by class on demand.

    Args:
        image: [3, H, W].
        crop: Height and width of a window in pixels, at most those of the image; None for the whole image.
        stride: Vertical and horizontal distance between windows, in pixels.
    """

    def __init__(self, image: Tensor, crop: tuple[int, int] | None, stride: tuple[int, int]) -> None:
        self.image = image
        self.size = tuple(image.shape[-2:])
        self.crop = tuple(min(side, limit) for side, limit in zip(self.size, crop or self.size, strict=True))
        self.starts = [window_starts(*sides) for sides in zip(self.size, self.crop, stride, strict=True)]
        self.corners = [(top, left) for top in self.starts[0] for left in self.starts[1]]
        self.logits = []

    def window(self, index: int) -> Tensor:
        """The pixels [3, h, w] of a window."""
        top, left = self.corners[index]
        return self.image[:, top : top + self.crop[0], left : left + self.crop[1]]

    @property
    def num_classes(self) -> int:
        """Number of channels of the logits."""
        return len(self.logits[0])

    @property
    def is_finite(self) -> Tensor:
        """Whether all logits are finite: bool [], on their device."""
        return torch.stack([logits.isfinite().all() for logits in self.logits]).all()

    def mean_logits(
        self, classes: slice, align_corners: bool, size: tuple[int, int], out: Tensor | None = None
    ) -> Tensor:
        """Mean logits of some classes over the windows of each pixel: float32 [C, height, width].

        The number of windows of a pixel is the product of those of its row and of its column, so no count map is built.

        Args:
            classes: Channels to return.
            align_corners: As in `torch.nn.functional.interpolate`.
            size: Height and width of the part to return, from the top left, in pixels: the image without its padding.
            out: Output tensor.
        """
        if out is None:
            num_classes = len(range(self.num_classes)[classes])
            out = self.logits[0].new_empty(num_classes, *size, dtype=torch.float32)
        out.zero_()
        for (top, left), logits in zip(self.corners, self.logits, strict=True):
            part = out[:, top : top + self.crop[0], left : left + self.crop[1]]
            window = resize(logits[None, classes].float(), self.crop, mode='bilinear', align_corners=align_corners)[0]
            part += window[:, : part.shape[1], : part.shape[2]]
        rows, columns = (list(overlaps(*sides)) for sides in zip(self.starts, self.crop, strict=True))
        for begin, end, count in rows:
            out[:, begin:end].div_(count)
        for begin, end, count in columns:
            out[:, :, begin:end].div_(count)
        return out


def windowed_images(
    pairs: Iterable[tuple[Tensor, Sample]],
    network: Callable[[Tensor], Tensor],
    crop: tuple[int, int] | None,
    stride: tuple[int, int],
    windows_per_batch: int,
) -> Iterator[tuple[WindowedImage, Sample]]:
    """Images [3, H, W] with the logits of all their windows, in order, each with its sample.

    Windows of one size go through the network together, even from different images. `pairs` is consumed lazily.

    Args:
        pairs: Images, each with its sample.
        network: From windows [B, 3, h, w] to logits [B, C, h', w'] of any resolution.
        crop, stride: As `WindowedImage` takes them.
        windows_per_batch: Maximum of B.
    """
    begun = deque()
    batch = []

    def flush() -> None:
        windows = [image.window(index) for image, index in batch]
        logits = network(windows[0][None] if len(windows) == 1 else torch.stack(windows))
        for (image, _), one in zip(batch, logits, strict=True):
            image.logits.append(one)
        batch.clear()

    def done() -> Iterator[tuple[WindowedImage, Sample]]:
        while begun and len(begun[0][0].logits) == len(begun[0][0].corners):
            yield begun.popleft()

    for pixels, sample in pairs:
        image = WindowedImage(pixels, crop, stride)
        begun.append((image, sample))
        for index in range(len(image.corners)):
            if batch and (len(batch) == windows_per_batch or batch[-1][0].crop != image.crop):
                flush()
            batch.append((image, index))
        if len(batch) == windows_per_batch:
            flush()
        yield from done()
    if batch:
        flush()
    yield from done()
