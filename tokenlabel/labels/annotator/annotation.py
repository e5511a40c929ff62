"""The annotation loop: decodes images, runs the annotator and writes the label store."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tokenlabel.errors import UserError
from tokenlabel.image_files.reading import decode, open_image
from tokenlabel.image_files.unreadable import because
from tokenlabel.labels.annotator.inference import Inference, Maps
from tokenlabel.labels.store import LabelWriter, encode_keys, image_keys
from tokenlabel.labels.store.background_writer import BackgroundWriter
from tokenlabel.labels.view_rule import ViewRule
from tokenlabel.processes.signals import leave_signals_to_parent

SECONDS_BETWEEN_LOOKS = 1.0


class ViewedImages(Dataset):
    """Images of a timm reader as an annotator sees them.

    Args:
        reader: timm reader.
        rows: positions of the images in the reader, in the order of this dataset.
        rule: the part of an image that the annotator sees.
    """

    def __init__(self, reader: Any, rows: np.ndarray, rule: ViewRule) -> None:
        self.reader, self.rows, self.rule = reader, rows, rule

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> 'ViewedImage':
        row = int(self.rows[index])
        try:
            stream, target = self.reader[row]
            with stream:
                image = decode(open_image(stream))
            return ViewedImage(index, self.rule.pixels(image), image.size, -1 if target is None else int(target), None)
        except OSError as error:
            # report the image later, so that the other images of its batch are kept
            nothing = torch.zeros(3, self.rule.size, self.rule.size, dtype=torch.uint8)
            path = self.reader.filename(row, absolute=True)
            return ViewedImage(index, nothing, (0, 0), -1, (path, because(error)))


class ViewedImage(NamedTuple):
    """An image for the annotator.

    Attributes:
        index: its number.
        pixels: uint8 [3, size, size].
        size: (width, height) of the original, upright; (0, 0) if it cannot be read.
        target: number of its class in the reader; -1 if it has none.
        unreadable: (path, reason and remedy) of an image that cannot be read; None otherwise.
    """

    index: int
    pixels: Tensor
    size: tuple[int, int]
    target: int
    unreadable: tuple[str, str] | None


@dataclass
class Tally:
    """Counts of a run so far.

    Attributes:
        images: number of images that this process has written.
        skipped: number of these that could not be read.
        labelled: number of these with a label, per class of the annotator.
        correct: number of these that the annotator classifies correctly, per class.
    """

    images: int = 0
    skipped: int = 0
    labelled: Counter[int] = field(default_factory=Counter)
    correct: Counter[int] = field(default_factory=Counter)

    @property
    def top1(self) -> float | None:
        """The annotator's accuracy in percent; None before the first image with a label."""
        return 100 * self.correct.total() / self.labelled.total() if self.labelled else None

    def weakest(self, count: int) -> list[tuple[int, float]]:
        """The `count` classes with the lowest accuracy, each with its accuracy in percent."""
        scores = [(label, 100 * self.correct[label] / images) for label, images in self.labelled.items()]
        return sorted(scores, key=lambda score: (score[1], score[0]))[:count]


def annotate(
    inference: Inference,
    reader: Any,
    writer: LabelWriter,
    *,
    workers: int = 0,
    labels: np.ndarray | None = None,
    wait_for_others: bool = False,
    on_unreadable: Callable[[str], None] | None = None,
    on_batch: Callable[[Tally], None] = lambda tally: None,
) -> Tally:
    """Writes all missing maps that no other process is writing. The caller finalises the store.

    Args:
        inference: the annotator, with the view rule and k of the store.
        reader: timm reader with the writer's images.
        writer: store to fill.
        workers: number of processes that decode images; 0 decodes in this process.
        labels: the annotator's class for each class of the reader, -1 for none; used to measure accuracy.
        wait_for_others: return only when no other process is writing, and take over the shards of one that dies.
        on_unreadable: called with the path of an image that cannot be read and the reason; the image gets no map.
            With None, such an image is an error.
        on_batch: called after every batch with the counts of this process, and about once a second while it waits.

    Returns:
        The counts of this process.

    Raises:
        UserError: an image cannot be read (named), scores are not finite, the disk is full, or a decoding process
            died. Maps annotated before are on disk.
    """
    rows = np.argsort(encode_keys(image_keys(reader)), kind='stable')
    images = ViewedImages(reader, rows, inference.rule)
    tally = Tally()
    while True:
        before = tally.images
        with BackgroundWriter(writer) as background, worker_deaths('fewer --workers or a smaller --batch-size'):
            for batch in _batches(images, writer, workers, inference.device.type == 'cuda'):
                _report(batch.unreadable, on_unreadable)
                maps = inference(batch.pixels, batch.sizes)
                background.write(
                    batch.places,
                    maps.scores,
                    maps.classes,
                    batch.sizes,
                    wait=maps.wait,
                    written=partial(_count, tally, maps, batch.targets, batch.sizes, labels),
                )
                on_batch(tally)
        on_batch(tally)
        while wait_for_others and writer.others_at_work():
            time.sleep(SECONDS_BETWEEN_LOOKS)
            on_batch(tally)
        # If the last round claimed no shard, none is left to claim.
        if not wait_for_others or tally.images == before or writer.num_done == len(writer.keys):
            return tally


class _Batch(NamedTuple):
    start: int
    pixels: Tensor
    sizes: Tensor
    targets: Tensor
    unreadable: list[tuple[str, str]]

    @property
    def places(self) -> range:
        return range(self.start, self.start + len(self.pixels))


def _count(tally: Tally, maps: Maps, targets: Tensor, sizes: Tensor, labels: np.ndarray | None) -> None:
    """Adds a batch to a tally. Takes single tensors, not the batch, so that the pixels can be freed."""
    tally.images += len(sizes)
    tally.skipped += int((sizes[:, 0] == 0).sum())
    if labels is not None:
        expected = np.append(labels, -1)[targets.numpy()]  # the appended -1 is for images without a class
        tally.labelled.update(expected[expected >= 0].tolist())
        tally.correct.update(expected[expected == maps.best.numpy()].tolist())


def _batches(images: ViewedImages, writer: LabelWriter, workers: int, pin_memory: bool) -> Iterator[_Batch]:
    num_left = -(-(len(images) - writer.num_done) // writer.meta['batch_size'])
    # The loader starts its workers before it asks for batches, so shards are claimed after the fork.
    loader = DataLoader(
        images,
        batch_sampler=writer.batches(),
        worker_init_fn=leave_signals_to_parent,
        num_workers=min(workers, num_left),
        collate_fn=_collate,
        pin_memory=pin_memory,
    )
    yield from loader


def _collate(samples: list[ViewedImage]) -> _Batch:
    indices, pixels, sizes, targets, unreadable = zip(*samples, strict=True)
    named = [reason for reason in unreadable if reason is not None]
    return _Batch(indices[0], torch.stack(pixels), torch.tensor(sizes), torch.tensor(targets), named)


def _report(unreadable: list[tuple[str, str]], on_unreadable: Callable[[str], None] | None) -> None:
    if unreadable and on_unreadable is None:
        path, why = unreadable[0]
        more = f' and {len(unreadable) - 1} more of its batch' if len(unreadable) > 1 else ''
        raise UserError(
            f'{path}{more} cannot be read as an image {why}, or leave such images out with --on-error skip.'
        )
    for path, why in unreadable:
        on_unreadable(f'{path} {why}')


@contextmanager
def worker_deaths(choose: str) -> Iterator[None]:
    """Turns the death of a loader's worker into a `UserError` with the remedy `choose`.

    PyTorch reports the death to the main process by a signal, or as a broken connection while it fetches a batch.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        if isinstance(error, RuntimeError) and 'DataLoader worker' not in str(error):
            raise
        if not isinstance(error, RuntimeError):
            # wait for the signal, which would otherwise replace our message
            with suppress(RuntimeError):
                time.sleep(SECONDS_BETWEEN_LOOKS)
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f'A process that decodes images died, perhaps out of memory ({reason}): '
            f'choose {choose}, then run again to resume.'
        ) from error
