"""Windows over images: where they lie, which go through the network together, and the mean of their logits."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

import torch
from torch import Tensor

Box = tuple[int, int, int, int]


def window_starts(length: int, crop: int, stride: int) -> list[int]:
    """First pixels of the windows along one side; the last one is shifted back so that it ends with the image."""
    count = max(length - crop + stride - 1, 0) // stride + 1
    return [max(min(index * stride, length - crop), 0) for index in range(count)]


class WindowedImage:
    """One image, its windows, and the sum of the logits that they gave.

    Args:
        image: [3, H, W].
        crop: Height and width of a window, in pixels; None for one window that is the image. A window is never larger
            than the image.
        stride: From one window to the next, down and right, in pixels.
    """

    def __init__(self, image: Tensor, crop: tuple[int, int] | None, stride: tuple[int, int]) -> None:
        self.image = image
        size = tuple(image.shape[-2:])
        self.crop = tuple(min(side, limit) for side, limit in zip(size, crop or size, strict=True))
        self.starts = [window_starts(*sides) for sides in zip(size, self.crop, stride, strict=True)]
        self.corners = [(top, left) for top in self.starts[0] for left in self.starts[1]]
        self.num_waiting = len(self.corners)
        self.sum = None

    def window(self, top: int, left: int) -> Tensor:
        """The pixels [3, h, w] of a window."""
        return self.image[:, top : top + self.crop[0], left : left + self.crop[1]]

    def add(self, top: int, left: int, logits: Tensor) -> None:
        """Adds the logits [C, h, w] of a window, in float32."""
        self.num_waiting -= 1
        if len(self.corners) == 1:
            self.sum = logits.float()
            return
        if self.sum is None:
            self.sum = logits.new_zeros((len(logits), *self.image.shape[-2:]), dtype=torch.float32)
        self.sum[:, top : top + self.crop[0], left : left + self.crop[1]] += logits

    def mean(self) -> Tensor:
        """The mean [C, H, W] over the windows of each pixel, in place of the sum.

        A pixel lies in as many windows as its row has times as its column has, so that no map of counts is built.
        """
        for dim, (starts, crop) in enumerate(zip(self.starts, self.crop, strict=True), start=1):
            for begin, end, count in overlaps(starts, crop):
                self.sum.narrow(dim, begin, end - begin).div_(count)
        return self.sum


def overlaps(starts: list[int], crop: int) -> Iterator[Box]:
    """Ranges `begin, end, count` along one side that lie in more than one window."""
    edges = sorted({*starts, *(start + crop for start in starts)})
    for begin, end in pairwise(edges):
        count = sum(start <= begin < start + crop for start in starts)
        if count > 1:
            yield begin, end, count


def sliding_logits(
    images: Iterable[Tensor],
    network: Callable[[Tensor], Tensor],
    crop: tuple[int, int] | None,
    stride: tuple[int, int],
    windows_per_batch: int,
) -> Iterator[Tensor]:
    """Means of the windows' logits [C, H, W] of each image [3, H, W], in order.

    Windows of one size go through the network together, also those of neighbouring images. Images are drawn when
    their windows are due, and forgotten with their logits.

    Args:
        network: From windows [B, 3, h, w] to logits [B, C, h, w].
        crop, stride: As `WindowedImage` takes them.
        windows_per_batch: B at most.
    """
    begun = deque()
    batch = []

    def flush() -> None:
        logits = network(torch.stack([image.window(*corner) for image, corner in batch]))
        for (image, corner), window in zip(batch, logits, strict=True):
            image.add(*corner, window)
        batch.clear()

    for pixels in images:
        image = WindowedImage(pixels, crop, stride)
        begun.append(image)
        for corner in image.corners:
            if batch and (len(batch) == windows_per_batch or batch[-1][0].crop != image.crop):
                flush()
            batch.append((image, corner))
        while begun and not begun[0].num_waiting:
            yield begun.popleft().mean()
    if batch:
        flush()
    while begun:
        yield begun.popleft().mean()
