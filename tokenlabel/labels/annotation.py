"""From images to a label store: decode, annotate, write."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tokenlabel.errors import UserError
from tokenlabel.labels.dense_classifier import DenseClassifier
from tokenlabel.labels.store import LabelWriter, encode_keys, image_keys

PRECISIONS = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}


class SquashedImages(Dataset):
    """Images of a timm reader, each squeezed whole to a square (bicubic).

    Orientation tags (EXIF) are ignored, as is usual for ImageNet: training must read the pixels in the same way.

    Args:
        reader: timm reader.
        rows: positions of the images in the reader, in the order they are to be numbered here.
        size: side of the square in pixels.

    A sample is `(uint8 [3, size, size], (width, height) of the original, None)`, or with an error message in the last
    place when the image cannot be read.
    """

    def __init__(self, reader: Any, rows: np.ndarray, size: int) -> None:
        self.reader, self.rows, self.size = reader, rows, size

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, tuple[int, int], str | None]:
        row = int(self.rows[index])
        try:
            stream, _ = self.reader[row]
            with stream, Image.open(stream) as image:
                size = image.size
                squashed = image.convert('RGB').resize((self.size, self.size), Image.Resampling.BICUBIC)
        except Exception as error:
            # Raised in a loader's worker, it would lose its sentence in a traceback. Pillow raises nearly anything.
            nothing = torch.zeros(3, self.size, self.size, dtype=torch.uint8)
            return nothing, (0, 0), f'{self.reader.filename(row, absolute=True)} ({error or type(error).__name__})'
        return torch.from_numpy(np.array(squashed)).permute(2, 0, 1), size, None


def annotate(
    dense: DenseClassifier,
    reader: Any,
    writer: LabelWriter,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    *,
    device: torch.device | str = 'cpu',
    precision: str = 'fp32',
    workers: int = 0,
    on_batch: Callable[[int], None] = lambda count: None,
) -> None:
    """Write the maps of all images that the writer still lacks. The caller finalises.

    Args:
        dense: annotator, on `device`.
        reader: timm reader whose images are the writer's.
        writer: store to fill; its view rule gives the input size.
        mean, std: of the annotator's input, in [0, 1].
        device: where the annotator runs.
        precision: a key of `PRECISIONS`; other than fp32 it is autocast.
        workers: processes that decode images; 0 decodes here.
        on_batch: told the number of images each time a batch is on disk.

    Raises:
        UserError: an image that cannot be read (named), or scores that are not finite.
    """
    device = torch.device(device)
    rows = np.argsort(encode_keys(image_keys(reader)), kind='stable')
    images = SquashedImages(reader, rows, writer.meta['view']['size'])
    batches = writer.batches()
    loader = DataLoader(
        images,
        batch_sampler=batches,
        num_workers=min(workers, len(batches)),
        collate_fn=_collate,
        pin_memory=device.type == 'cuda',
    )
    mean_255 = torch.tensor(mean, device=device).view(3, 1, 1) * 255
    std_255 = torch.tensor(std, device=device).view(3, 1, 1) * 255
    for batch, (pixels, sizes, failures) in zip(batches, loader, strict=True):
        if failures:
            raise UserError(f'Cannot read image {failures[0]}: replace or remove it.')
        inputs = (pixels.to(device, non_blocking=True) - mean_255) / std_255
        with _autocast(device, precision):
            logits = dense(inputs)
        scores, classes = logits.topk(writer.meta['k'], dim=1)
        writer.write(batch, scores.cpu().numpy(), classes.cpu().numpy(), sizes)
        on_batch(len(batch))


def _collate(samples: list) -> tuple[Tensor, np.ndarray, list[str]]:
    pixels, sizes, failures = zip(*samples, strict=True)
    return torch.stack(pixels), np.array(sizes, dtype=np.int64), [failure for failure in failures if failure]


@contextmanager
def _autocast(device: torch.device, precision: str) -> Iterator[None]:
    with torch.autocast(device.type, dtype=PRECISIONS[precision], enabled=precision != 'fp32'):
        yield
