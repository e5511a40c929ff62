"""Imports the score maps of the 2021 release into a label store, and exports a store in that layout.

The release has one file `class/image.pt` for each image: a half precision tensor [2, k, S, S], scores (logits) and
class ids. It was made with NFNet-F6 on a centre crop of 576 pixels (`--crop-pct 1.0`), although its trainer reads the
maps as if they covered the whole image.
"""

import io
import os
import time
import zipfile
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from tokenlabel.errors import UserError
from tokenlabel.files.reading import open_regular, relative_name
from tokenlabel.files.writing import disk_errors, write_atomically
from tokenlabel.labels.annotator import class_names
from tokenlabel.labels.annotator.annotation import SECONDS_BETWEEN_LOOKS, worker_deaths
from tokenlabel.labels.maintenance.release_archive import MAX_MAP_BYTES, SUFFIX, Archive, open_archive, stems
from tokenlabel.labels.source_images import image_size
from tokenlabel.labels.store import DEFAULT_BATCH_SIZE, LabelStore, LabelWriter, image_keys
from tokenlabel.labels.store.background_writer import BackgroundWriter
from tokenlabel.labels.store.files import RESUME
from tokenlabel.labels.store.keys import encode_keys
from tokenlabel.labels.store.shards import read_rows
from tokenlabel.labels.view_rule import Squash, ViewRule, rule_record
from tokenlabel.processes.signals import leave_signals_to_parent

ANNOTATOR = 'dm_nfnet_f6 (release)'
EXACT_CLASSES = 2048  # half precision represents every class id below this
IMAGE_SUFFIX = '.JPEG'


def import_release(
    source: str | Path,
    path: str | Path,
    rule: ViewRule,
    *,
    num_classes: int = 1000,
    reader: Any | None = None,
    transposed: bool = False,
    workers: int = 0,
    on_batch: Callable[[int, int], None] = lambda count, total: None,
) -> LabelStore:
    """Converts released score maps. The same call resumes after a stop, and several processes may run it at once.

    Args:
        source: folder, tar or zip of the maps.
        path: the store to write.
        rule: the part of an image that its map covers.
        num_classes: number of the annotator's classes.
        reader: the images; maps are matched to them by their paths without suffix. None names the images
            `class/image.JPEG` and records no sizes, which is enough if maps cover whole images.
        transposed: the maps have rows and columns exchanged; the import puts them upright.
        workers: number of processes that read maps and image headers; 0 reads in this process.
        on_batch: called from a thread with (images done, images in total), first for those of earlier runs and then
            whenever a batch is on disk.

    Raises:
        UserError: an image has no map, a map has no image or two, a map has another type or shape, an image cannot be
            read (each named), or the rule needs `reader`.
    """
    if reader is None and not isinstance(rule, Squash):
        raise UserError(
            f'The view rule {rule.name} depends on the width and height of each image: give the images with --images, '
            'or choose --view squash.'
        )
    _check_exact(num_classes)
    archive = open_archive(source)
    keys, maps, rows = _matched(archive, reader)
    maps_of_images = _ReleasedMaps(archive, maps, reader, rows, num_classes, transposed)
    writer = LabelWriter(
        path,
        keys,
        annotator={'name': ANNOTATOR, 'digest': None, 'transposed': transposed},
        num_classes=num_classes,
        k=maps_of_images.shape[1],
        grid=maps_of_images.shape[2:],
        view=rule_record(rule),
        class_names=class_names(reader, num_classes),
    )
    on_batch(writer.num_done, len(keys))
    with writer:
        # Several processes may import at once. If one dies, the others take over its shards.
        while _convert(writer, maps_of_images, workers, on_batch) or writer.others_at_work():
            while writer.others_at_work():
                time.sleep(SECONDS_BETWEEN_LOOKS)
        writer.finalise()
    return LabelStore(path)


def export_release(
    store: LabelStore, folder: str | Path, on_map: Callable[[], None] = lambda: None, threads: int | None = None
) -> int:
    """Writes a store's maps in the layout of the release; existing equal files are not written again.

    Args:
        store: the store.
        folder: target of the `class/image.pt` files.
        on_map: called for each image.
        threads: number of writing threads; None chooses by the machine.

    Returns:
        Number of maps; images that the annotator skipped have none.

    Raises:
        UserError: class ids exceed half precision, two images have the same name without suffix, an existing file
            differs, or the disk is full.
    """
    _check_exact(store.num_classes)
    folder = Path(folder)
    skipped = set(store.meta['skipped'])
    keys = [key for key in store.keys[:] if key not in skipped]
    files = [relative_name(stem, store.path) + SUFFIX for stem in _stems(keys)]
    _check_distinct(keys, files)

    def write(batch: range) -> None:
        maps = read_rows(store, store.keys.rows(keys[batch.start : batch.stop]))
        for index, scores, classes in zip(batch, maps.scores, maps.classes, strict=True):
            _write_map(folder / files[index], scores, classes)
            on_map()

    batches = [range(i, min(i + DEFAULT_BATCH_SIZE, len(keys))) for i in range(0, len(keys), DEFAULT_BATCH_SIZE)]
    with disk_errors(folder, RESUME), ThreadPoolExecutor(threads) as pool:
        try:
            deque(pool.map(write, batches), maxlen=0)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return len(keys)


class _ReleasedMaps(Dataset):
    """Released maps in the order of a store's keys: (scores, classes, size), or an error message for an unusable map.

    Attributes:
        shape: (2, k, S, S) of the first map, which all maps must have.
    """

    def __init__(
        self, archive: Archive, maps: np.ndarray, reader: Any, rows: np.ndarray, num_classes: int, transposed: bool
    ) -> None:
        self.archive, self.maps, self.reader, self.rows = archive, maps, reader, rows
        self.num_classes, self.transposed = num_classes, transposed
        self.shape: tuple[int, ...] | None = None
        first = self[0]
        if isinstance(first, str):
            raise UserError(first)
        self.shape = (2, *first[0].shape)

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, tuple[int, int]] | str:
        # Returned, not raised: a loader's worker would bury the message in a traceback.
        try:
            scores, classes = self._map(int(self.maps[index]))
            return scores, classes, self._size(int(self.rows[index]))
        except UserError as error:
            return str(error)

    def _map(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        path = self.archive.path(index)
        try:
            maps = _loaded(self.archive.read(index))
        except Exception as error:
            # damaged files can raise almost any exception
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(f'{path} cannot be read as a score map ({reason}): fetch it again.') from error
        if not _is_released_map(maps):
            kind = f'{maps.dtype} {list(maps.shape)}' if isinstance(maps, torch.Tensor) else type(maps).__name__
            raise UserError(f'{path} is not a released score map, which is a half precision [2, k, S, S], but {kind}.')
        if self.shape not in (None, tuple(maps.shape)):
            raise UserError(f'{path} has the shape {list(maps.shape)}, the first map {list(self.shape)}.')
        maps = maps.detach().float()
        scores, ids = (maps.transpose(2, 3) if self.transposed else maps).numpy()
        scores = scores.astype(np.float16)
        if not np.isfinite(scores).all():
            raise UserError(f'{path} has scores that are not finite.')
        wrong = ids[(ids != np.round(ids)) | ~((ids >= 0) & (ids < self.num_classes))]
        if len(wrong):
            raise UserError(f'{path} has the class id {wrong[0]:g}, where 0 to {self.num_classes - 1} belong.')
        if (scores[1:] > scores[:-1]).any():
            order = np.argsort(-scores, axis=0, kind='stable')
            scores, ids = (np.take_along_axis(array, order, axis=0) for array in (scores, ids))
        return scores, ids.astype(np.int32)

    def _size(self, row: int) -> tuple[int, int]:
        """Width and height of an image from its header; 1x1 stands for not known."""
        return (1, 1) if self.reader is None else image_size(self.reader, row)


def _convert(writer: LabelWriter, maps: _ReleasedMaps, workers: int, on_batch: Callable[[int, int], None]) -> int:
    """Writes all maps that no other process is writing; returns the number of images."""
    batches_left = -(-(len(maps) - writer.num_done) // writer.meta['batch_size'])
    read: deque[range] = deque()
    loader = DataLoader(
        maps,
        batch_sampler=_remembered(writer.batches(), read),
        worker_init_fn=leave_signals_to_parent,
        num_workers=min(workers, batches_left),
        collate_fn=list,
    )
    count = 0
    with BackgroundWriter(writer) as background, worker_deaths('fewer --workers'):
        for samples in loader:
            failures = [sample for sample in samples if isinstance(sample, str)]
            if failures:
                raise UserError(failures[0])
            arrays = [torch.from_numpy(np.stack(arrays)) for arrays in zip(*samples, strict=True)]
            background.write(read.popleft(), *arrays, written=partial(on_batch, len(samples), len(maps)))
            count += len(samples)
    return count


def _remembered(batches: Iterator[range], memory: deque[range]) -> Iterator[range]:
    """Yields `batches` and records them in `memory`, because the loader prefetches ahead of the batches it returns."""
    for batch in batches:
        memory.append(batch)
        yield batch


def _is_released_map(maps: Any) -> bool:
    if not isinstance(maps, torch.Tensor) or maps.layout != torch.strided or maps.device.type != 'cpu':
        return False
    # limit the size: a few stored bytes can be a view of any shape
    if not maps.is_floating_point() or maps.ndim != 4 or 2 * maps.numel() > MAX_MAP_BYTES:
        return False
    return len(maps) == 2 and maps.shape[1] > 0 and maps.shape[2] == maps.shape[3] > 0


def _matched(archive: Archive, reader: Any | None) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Sorted keys of the images, and the positions of each one's map in the archive and image in the reader."""
    names = stems(archive)
    keys = image_keys(reader) if reader is not None else [name + IMAGE_SUFFIX for name in names]
    order = np.argsort(encode_keys(keys), kind='stable')
    ordered = [keys[row] for row in order]
    if reader is None:
        return ordered, order, order
    places = {name: index for index, name in enumerate(names)}
    of_images = [whole if (whole := os.path.splitext(key)[0]) in places else _stem(key) for key in ordered]
    _check_distinct(ordered, of_images)
    missing = [key for key, stem in zip(ordered, of_images, strict=True) if stem not in places]
    if missing:
        raise UserError(
            f'{len(missing)} of {len(keys)} images have no map in the release (the first: {", ".join(missing[:3])}): '
            'give the images that it was made for, and all of its maps.'
        )
    extra = places.keys() - set(of_images)
    if extra:
        first = archive.path(places[min(extra)])
        raise UserError(
            f'{len(extra)} maps have no image (the first: {first}): give all images; '
            '`labels.py subset` makes a smaller store afterwards.'
        )
    return ordered, np.array([places[stem] for stem in of_images]), order


def _loaded(content: bytes) -> Any:
    """The object in a torch file.

    Raises:
        ValueError: the file is compressed, which torch never does; it could decompress to any size.
    """
    file = io.BytesIO(content)
    if content.startswith(b'PK'):
        with zipfile.ZipFile(file) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError('it is compressed inside')
        file.seek(0)
    return torch.load(file, map_location='cpu', weights_only=True)


def _stems(keys: list[str]) -> list[str]:
    """Map names of images, as in the release. Names that would collide are cut at the last dot instead of the first."""
    short = [_stem(key) for key in keys]
    counts = Counter(short)
    return [os.path.splitext(key)[0] if counts[stem] > 1 else stem for key, stem in zip(keys, short, strict=True)]


def _stem(key: str) -> str:
    """Path of an image up to the first dot of its name, after which the release names its map."""
    folder, slash, name = key.rpartition('/')
    return folder + slash + name.partition('.')[0]


def _check_distinct(keys: list[str], stems: list[str]) -> None:
    first: dict[str, str] = {}
    for key, stem in zip(keys, stems, strict=True):
        if first.setdefault(stem, key) != key:
            raise UserError(f'{first[stem]} and {key} have one name in the layout of the release: rename one of them.')


def _check_exact(num_classes: int) -> None:
    if num_classes > EXACT_CLASSES:
        raise UserError(
            f'The layout of the release holds class ids in half precision, exact up to {EXACT_CLASSES} classes: '
            f'it is not for {num_classes}.'
        )


def _write_map(path: Path, scores: np.ndarray, classes: np.ndarray) -> None:
    released = torch.from_numpy(np.stack([scores, classes.astype(np.float16)]))
    if path.exists():
        try:
            with open_regular(path) as file:
                same = torch.equal(_loaded(file.read(MAX_MAP_BYTES)).view(torch.int16), released.view(torch.int16))
        except Exception:
            # an unreadable file is not an equal map either
            same = False
        if not same:
            raise UserError(f'{path} exists and holds something else: give another folder.')
        return
    buffer = io.BytesIO()
    torch.save(released, buffer)
    write_atomically(path, buffer.getvalue())
