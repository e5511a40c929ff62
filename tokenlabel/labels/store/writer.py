"""Writes a label store: begins or resumes it, claims shards, finalises."""

import io
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from tokenlabel.errors import UserError
from tokenlabel.files.writing import disk_errors, is_temporary, write_atomically
from tokenlabel.labels.store.files import (
    ARRAYS,
    RESUME,
    check_arrays,
    file_digest,
    file_name,
    file_names,
    layout,
    map_array,
    num_shards,
    shard_size,
)
from tokenlabel.labels.store.keys import Keys, encode_keys, read_keys
from tokenlabel.labels.store.meta import FORMAT, VERSION, check_listed, read_meta, write_meta
from tokenlabel.labels.store.settings import check_same, check_same_images, check_settings
from tokenlabel.labels.store.shard_writer import (
    ShardWriter,
    check_shard,
    claim_shard,
    is_claimed,
    locked_folder,
    num_done,
)

DEFAULT_BATCH_SIZE = 64


class LabelWriter:
    """Begins or resumes a label store. Any number of processes may do so at once.

    A process claims one unfinished shard after another by a file lock, which the system releases if the process dies.
    It writes the batches of `batches()` in their order. `rank` and `world` only set where it begins to look. Without
    file locks, a process takes only every `world`-th shard from number `rank` on. A process that finds all maps written
    finalises the store.

    Args:
        path: the directory; created if missing.
        keys: names of all images, in any order.
        annotator: JSON record of the annotator (name, digest of the weights...), which must not change on resume.
        num_classes: number of the annotator's classes.
        k: scores kept per cell.
        grid: cells (S, S).
        view: record of the view rule, such as `{'rule': 'squash', 'size': 224}`; see `rule_record`.
        class_names: names of the annotator's classes in order, if known.
        batch_size: images per batch. It is recorded, because it may change the last bits of the scores. None takes the
            store's own, or 64 for a new store.
        images_per_shard: rounded up to whole batches; None makes 128 shards, or fewer of at least 256 images.
        rank, world: rank of this process, and number of processes.

    Raises:
        UserError: the directory holds other files, or a store begun with other settings or images.
    """

    def __init__(
        self,
        path: str | Path,
        keys: Sequence[str],
        *,
        annotator: dict[str, Any],
        num_classes: int,
        k: int,
        grid: tuple[int, int],
        view: dict[str, Any],
        class_names: Sequence[str] | None = None,
        batch_size: int | None = None,
        images_per_shard: int | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.path = Path(path)
        self.rank, self.world = rank, world
        encoded = np.sort(encode_keys(keys))
        stored = read_meta(self.path)
        if stored is not None:
            batch_size = batch_size or stored['batch_size']
            images_per_shard = images_per_shard or stored['images_per_shard']
        batch_size = batch_size or DEFAULT_BATCH_SIZE
        images_per_shard = images_per_shard or max(256, -(-len(encoded) // 128))
        settings = {
            'format': FORMAT,
            'version': VERSION,
            'annotator': annotator,
            'view': view,
            'num_classes': num_classes,
            'class_names': None if class_names is None else list(class_names),
            'k': k,
            'grid': list(grid),
            'num_images': len(encoded),
            'batch_size': batch_size,
            'images_per_shard': -(-images_per_shard // batch_size) * batch_size,
        }
        # Round trip through JSON, so that tuples compare equal to the lists of a file.
        settings = json.loads(json.dumps(settings))
        check_settings(settings)
        if stored is None:
            stored = self._begin(settings | {'complete': False, 'skipped': [], 'checksums': {}}, encoded)
        check_same_images(self.path, read_keys(self.path, stored), encoded)
        check_same(self.path, stored, settings)
        if stored['complete']:
            check_listed(self.path, stored)
            check_arrays(self.path, stored)
        self.meta = stored
        self.keys = Keys(encoded)
        self._claimed: dict[int, ShardWriter] = {}
        if self.complete:
            self._sweep()

    @property
    def complete(self) -> bool:
        """Whether the store is finished: all maps written and finalised."""
        return self.meta['complete']

    @property
    def num_done(self) -> int:
        """Number of images whose maps are on disk, from all processes."""
        shards, batch_size = range(num_shards(self.meta)), self.meta['batch_size']
        done = sum(min(self._done(shard) * batch_size, shard_size(self.meta, shard)) for shard in shards)
        # Checked last: a process that finishes the store meanwhile removes the progress files counted above.
        return len(self.keys) if self._is_finished() else done

    def batches(self) -> Iterator[range]:
        """Remaining batches, as ranges of positions in `keys`, in the order in which to write them.

        The iterator claims a shard when it reaches it, and ends when no unclaimed shard is left.
        """
        self.close()
        batch_size = self.meta['batch_size']
        while shard := self._claim_next():
            begin = shard.number * self.meta['images_per_shard']
            end = begin + shard_size(self.meta, shard.number)
            for start in range(begin + shard.done * batch_size, end, batch_size):
                yield range(start, min(start + batch_size, end))

    def others_at_work(self) -> bool:
        """Whether a shard is being written by another process; never on a file system without locks."""
        left = [shard for shard in range(num_shards(self.meta)) if not self._is_written(shard)]
        return not self._is_finished() and any(is_claimed(self.path, n) for n in left if n not in self._claimed)

    def write(self, batch: range, scores: np.ndarray, classes: np.ndarray, sizes: np.ndarray) -> None:
        """Writes one batch. When it returns, the batch is on disk and will not be requested again.

        Args:
            batch: positions of its images in `keys`, as `batches()` gave them.
            scores: [len(batch), k, S, S], finite.
            classes: [len(batch), k, S, S] class ids.
            sizes: [len(batch), 2] width and height of the images in pixels; (0, 0) for one that has no map.

        Raises:
            UserError: scores are not finite as float16, the disk is full, or another process writes the same shard.
            ValueError: the batch is not the next one, or an array has another shape or invalid class ids.
        """
        self.write_all([(batch, scores, classes, sizes)])

    def write_all(self, batches: Sequence[tuple[range, np.ndarray, np.ndarray, np.ndarray]]) -> None:
        """Writes consecutive batches, each as in `write`, with one fsync per shard.

        Raises:
            as `write`; batches before an invalid one are on disk.
        """
        checked: list[tuple[range, dict[str, np.ndarray]]] = []
        try:
            for batch in batches:
                checked.append((batch[0], self._arrays(*batch)))
        finally:
            for number, group in groupby(checked, key=lambda item: item[0].start // self.meta['images_per_shard']):
                ranges, arrays = zip(*group, strict=True)
                self._write(number, ranges[0].start - number * self.meta['images_per_shard'], arrays)

    def finalise(self) -> None:
        """Records checksums and marks the store finished, unless another process has done so.

        Raises:
            UserError: some maps are still missing, or the disk is full.
        """
        self.close()
        if self._is_finished():
            self._sweep()
            return
        with disk_errors(self.path, RESUME), locked_folder(self.path):
            missing = len(self.keys) - self.num_done
            if missing:
                raise UserError(f'{self.path} lacks the maps of {missing} images: resume it first.')
            if not self.complete:
                for shard in range(num_shards(self.meta)):
                    check_shard(self.path, self.meta, shard)
                meta = self.meta | {'complete': True, 'skipped': self._skipped(), 'checksums': self._checksums()}
                write_meta(self.path, meta)
                self.meta = meta
            self._sweep()

    def close(self) -> None:
        """Releases the claimed shards. Batches for which `write` has returned are on disk anyway."""
        while self._claimed:
            self._claimed.popitem()[1].close()

    def __enter__(self) -> 'LabelWriter':
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _begin(self, meta: dict, encoded: np.ndarray) -> dict:
        """Creates a store and returns its `meta.json`, which may be that of a process that came first.

        Writes the keys before `meta.json`, so a store with a `meta.json` always has its keys.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f'{self.path} is a file: give a folder for the label store.')
        store_files = ('keys.npy', 'lock')
        if self.path.is_dir():
            with disk_errors(self.path, RESUME):
                names = [file.name for file in self.path.iterdir() if not is_temporary(file)]
            foreign = [name for name in names if name not in store_files]
            if foreign and read_meta(self.path) is None:
                raise UserError(f'{self.path} is not a label store and not empty ({foreign[0]}): give another folder.')
        buffer = io.BytesIO()
        np.save(buffer, encoded)
        with disk_errors(self.path, RESUME):
            self.path.mkdir(parents=True, exist_ok=True)
            with locked_folder(self.path):
                existing = read_meta(self.path)
                if existing is None:
                    write_atomically(self.path / 'keys.npy', buffer.getvalue())
                    write_meta(self.path, meta)
        return existing or meta

    def _is_finished(self) -> bool:
        """As `complete`, but reads `meta.json` again."""
        if not self.complete:
            self.meta = read_meta(self.path) or self.meta
        return self.complete

    def _done(self, shard: int) -> int:
        return num_done(self.path, self.meta, shard)

    def _is_written(self, shard: int) -> bool:
        return self._done(shard) * self.meta['batch_size'] >= shard_size(self.meta, shard)

    def _claim_next(self) -> ShardWriter | None:
        """Claims an unfinished shard: first one of every `world`-th, then one of the others, last to first."""
        if self._is_finished():
            return None
        shards = range(num_shards(self.meta))
        own = shards[self.rank :: self.world]
        for number in [*own, *(number for number in reversed(shards) if number not in own)]:
            if number in self._claimed or self._is_written(number):
                continue
            with disk_errors(self.path, RESUME):
                shard = claim_shard(self.path, self.meta, number)
            if shard is None:
                continue
            # Without locks, another process may be writing this shard. With locks, it may just have finished it.
            if (not shard.locked and number not in own) or self._is_written(number):
                shard.close()
                continue
            self._claimed[number] = shard
            return shard
        return None

    def _arrays(self, batch: range, scores: np.ndarray, classes: np.ndarray, sizes: np.ndarray) -> dict:
        """The checked arrays of a batch, in the dtypes of their files."""
        with np.errstate(over='ignore'):
            arrays = {
                name: np.ascontiguousarray(values, dtype=layout(self.meta, name, 0)[0])
                for name, values in zip(ARRAYS, (scores, classes, sizes), strict=True)
            }
        for name, array in arrays.items():
            shape = (len(batch), *layout(self.meta, name, 0)[1][1:])
            if array.shape != shape:
                raise ValueError(f'{name} of a batch are {array.shape}, expected {shape}.')
        for found in (np.min(classes), np.max(classes)):
            if not 0 <= found < self.meta['num_classes']:
                raise ValueError(f'Class id {found} among {self.meta["num_classes"]} classes.')
        finite = np.isfinite(arrays['scores']).reshape(len(batch), -1).all(axis=1)
        if not finite.all():
            key = self.keys[batch[int(np.argmin(finite))]]
            raise UserError(f'The scores of {key} are not finite in half precision: annotate with --precision fp32.')
        return arrays

    def _write(self, number: int, row: int, batches: Sequence[dict[str, np.ndarray]]) -> None:
        with disk_errors(self.path, RESUME):
            shard = self._claimed.get(number) or claim_shard(self.path, self.meta, number)
            if shard is None:
                raise UserError(f'Another process is writing shard {number} of {self.path}: let it finish, or stop it.')
            self._claimed[number] = shard
            shard.write(row, batches)
        if self._is_written(number):
            self._claimed.pop(number).close()

    def _skipped(self) -> list[str]:
        """Keys of the images that have no map."""
        per_shard = self.meta['images_per_shard']
        return [
            self.keys[shard * per_shard + int(row)]
            for shard in range(num_shards(self.meta))
            for row in np.flatnonzero(self._sizes(shard)[:, 0] == 0)
        ]

    def _sizes(self, shard: int) -> np.ndarray:
        return map_array(self.path / file_name('sizes', shard), layout(self.meta, 'sizes', shard))

    def _checksums(self) -> dict[str, str]:
        """SHA-256 of every file but `meta.json`."""
        names = list(file_names(self.meta))
        with ThreadPoolExecutor() as pool:
            digests = list(pool.map(lambda name: file_digest(self.path / name), names))
        return dict(zip(names, digests, strict=True))

    def _sweep(self) -> None:
        """Removes files that a finished store does not need, including temporary files of killed processes."""
        with disk_errors(self.path, 'remove what is in the way'):
            for file in self.path.iterdir():
                if file.name.startswith('progress-') or file.name == 'lock' or is_temporary(file):
                    file.unlink(missing_ok=True)
