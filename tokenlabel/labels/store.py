"""The label store: top-k score maps of many images in one directory, read by memory map, written by many processes.

Files, for `n` images and a map of `[k, S, S]` scores and class ids each:

    meta.json            format version, annotator, classes, grid, k, view rule, layout; after the end also what was
                         skipped and a SHA-256 of every other file
    keys.npy             bytes [n], UTF-8, zero-padded, sorted: posix paths of the images below their folder
    scores-00000.npy     float16 [m, k, S, S], logits, best first
    classes-00000.npy    uint16, or uint32 above 65,536 classes, [m, k, S, S]
    sizes-00000.npy      uint32 [m, 2], width and height of the image in pixels; (0, 0) says that it has no map
    progress-00000       while writing: one byte per batch that is safely on disk

A shard is a fixed range of the sorted keys, cut into fixed batches. Shards and batches follow from the image list
alone, so a finished store has the same bytes whoever wrote it, in however many attempts.

The view rule (`tokenlabel.labels.view_rule`) says what part of its image a map covers; together with the image's size
it gives the map's View.
"""

import io
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tokenlabel.errors import UserError
from tokenlabel.files import is_temporary, write_atomically
from tokenlabel.labels.store_files import (
    ARRAYS,
    FORMAT,
    VERSION,
    ShardWriter,
    disk_errors,
    file_digest,
    file_name,
    layout,
    map_array,
    num_shards,
    read_meta,
    shard_size,
    write_meta,
)
from tokenlabel.labels.view_rule import view_rule
from tokenlabel.transforms.view import View

DEFAULT_BATCH_SIZE = 64


class LabelMap(NamedTuple):
    """Score map of an image: `scores` float16 and `classes` unsigned, both [k, S, S]; `view` map -> source image."""

    scores: np.ndarray
    classes: np.ndarray
    view: View


class Keys(Sequence[str]):
    """The image keys of a store, sorted; looked up by binary search in the (memory-mapped) file."""

    def __init__(self, encoded: np.ndarray) -> None:
        self.encoded = encoded

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [_decode(key) for key in self.encoded[index]]
        return _decode(self.encoded[index])

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and bool(self.rows([key])[0] >= 0)

    def rows(self, keys: Iterable[str]) -> np.ndarray:
        """Position of each key, int64; -1 where it is not in the store."""
        width = self.encoded.dtype.itemsize
        encoded = [_encode(key) for key in keys]
        # A longer key than the longest in the store is in none; the empty key, which no store holds, stands for it.
        queries = np.array([key if len(key) <= width else b'' for key in encoded], dtype=self.encoded.dtype)
        rows = np.minimum(np.searchsorted(self.encoded, queries), len(self) - 1)
        return np.where(self.encoded[rows] == queries, rows, -1).astype(np.int64)


class LabelStore:
    """A finished label store, opened for reading. Opening reads `meta.json` and maps `keys.npy`; nothing is scanned.

    It can be pickled and shared with worker processes: the maps are pages of the operating system's file cache.

    Attributes:
        path: the directory.
        meta: contents of `meta.json`.
        num_classes, class_names: of the annotator; names are None where they are not known.
        k, grid: scores kept per cell, and cells (S, S).
        view_rule: what part of an image its map covers.
        keys: image keys as a sorted sequence of str.

    Raises:
        UserError: no store, an unfinished one, one of a newer version, or damaged files.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.meta = read_meta(self.path)
        if self.meta is None:
            raise UserError(f'No label store at {self.path}: make one with tools/annotate.py.')
        if not self.meta['complete']:
            raise UserError(f'Label store {self.path} is unfinished: run the command that began it again to resume.')
        self.view_rule = view_rule(self.meta['view'])
        self.num_classes: int = self.meta['num_classes']
        self.class_names: list[str] | None = self.meta['class_names']
        self.k: int = self.meta['k']
        self.grid: tuple[int, int] = tuple(self.meta['grid'])
        self.keys = Keys(map_array(self.path / 'keys.npy'))
        if len(self.keys) != self.meta['num_images']:
            raise UserError(
                f'{self.path / "keys.npy"} is damaged: {len(self.keys)} keys, not {self.meta["num_images"]}.'
            )
        self._skipped = self.keys.rows(self.meta['skipped'])
        self._shards: dict[tuple[str, int], np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.keys)

    def __reduce__(self) -> tuple:
        return LabelStore, (self.path,)

    def __getitem__(self, index: int) -> LabelMap:
        """Map number `index` in the order of `keys`, as arrays of its own."""
        return LabelMap(self._row('scores', index).copy(), self._row('classes', index).copy(), self.view(index))

    def indices(self, keys: Iterable[str]) -> np.ndarray:
        """Position of each key, int64 [len(keys)]; -1 where the store has no map for it."""
        rows = self.keys.rows(keys)
        rows[np.isin(rows, self._skipped)] = -1
        return rows

    def size(self, index: int) -> tuple[int, int]:
        """Width and height of image number `index` in pixels."""
        width, height = self._row('sizes', index)
        return int(width), int(height)

    def view(self, index: int) -> View:
        """What part of image number `index` its map covers."""
        return self.view_rule.view(*self.size(index))

    def _row(self, name: str, index: int) -> np.ndarray:
        self._check(index)
        shard, row = divmod(index, self.meta['images_per_shard'])
        if (name, shard) not in self._shards:
            self._shards[name, shard] = self._open(name, shard)
        return self._shards[name, shard][row]

    def _open(self, name: str, shard: int) -> np.ndarray:
        path = self.path / file_name(name, shard)
        array = map_array(path, scattered=True)
        dtype, shape = layout(self.meta, name, shard)
        if (array.dtype, array.shape) != (dtype, shape):
            raise UserError(f'{path} is damaged: {array.dtype} {array.shape}, where {dtype} {shape} belongs.')
        return array

    def _check(self, index: int) -> None:
        if not 0 <= index < len(self):
            raise IndexError(f'Map {index} of a label store of {len(self)}.')


class LabelWriter:
    """Begins a label store or resumes one. Any number of processes may write to it, each its own `rank` of `world`.

    A process takes every `world`-th shard from number `rank` on; these may differ from one attempt to the next. It
    writes the batches that `batches()` names, in that order. Once all shards are written one process finalises.

    Args:
        path: the directory; made if need be.
        keys: names of all images, in any order.
        annotator: what made the maps, for the record and to notice a change: name, digest of the weights ... (JSON).
        num_classes: of the annotator.
        k: scores kept per cell.
        grid: cells (S, S).
        view: record of the view rule, such as `{'rule': 'squash', 'size': 224}`; see `rule_record`.
        class_names: of the annotator's classes in order, if known.
        batch_size: images per batch, part of the settings as it may change the last bits of the scores; None takes
            the store's own, 64 for a new one.
        images_per_shard: None takes 1024, or as many as make 128 shards; rounded up to whole batches.
        rank, world: number of this process, and of processes.

    Raises:
        UserError: the directory holds something else, or a store begun with other settings or images.
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
        images_per_shard = images_per_shard or max(1024, -(-len(encoded) // 128))
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
        _check_settings(settings)
        # Through JSON, so that tuples and lists compare equal with what a file holds.
        settings = json.loads(json.dumps(settings))
        if stored is None:
            stored = settings | {'complete': False, 'skipped': [], 'checksums': {}}
            self._begin(stored, encoded)
        else:
            self._check_same(stored, settings, encoded)
        self.meta = stored
        self.keys = Keys(encoded)
        self._shard: ShardWriter | None = None
        if self.complete:
            self._sweep()

    @property
    def complete(self) -> bool:
        """Whether the store is finished, so that there is nothing to write and nothing to finalise."""
        return self.meta['complete']

    @property
    def num_done(self) -> int:
        """Images whose maps are on disk, written by whichever process."""
        if self.complete:
            return len(self.keys)
        shards = range(num_shards(self.meta))
        return sum(min(self._done(shard) * self.meta['batch_size'], shard_size(self.meta, shard)) for shard in shards)

    def batches(self) -> list[range]:
        """Batches left to this process, as ranges of positions in `keys`, in the order they are to be written."""
        if self.complete:
            return []
        batch_size, per_shard = self.meta['batch_size'], self.meta['images_per_shard']
        left = []
        for shard in range(self.rank, num_shards(self.meta), self.world):
            begin = shard * per_shard
            end = begin + shard_size(self.meta, shard)
            starts = range(begin + self._done(shard) * batch_size, end, batch_size)
            left += [range(start, min(start + batch_size, end)) for start in starts]
        return left

    def write(self, batch: range, scores: np.ndarray, classes: np.ndarray, sizes: np.ndarray) -> None:
        """Write one batch; when this returns it is on disk and will not be asked for again.

        Args:
            batch: positions of its images in `keys`, as `batches()` gave them.
            scores: [len(batch), k, S, S] finite.
            classes: [len(batch), k, S, S] class ids.
            sizes: [len(batch), 2] width and height of the images in pixels; (0, 0) for one that has no map.

        Raises:
            UserError: scores that are not finite as float16, a full disk, or another process at the same shard.
            ValueError: a batch that is not the next one, or arrays of another shape.
        """
        shard, row = divmod(batch.start, self.meta['images_per_shard'])
        with np.errstate(over='ignore'):
            arrays = {
                name: np.ascontiguousarray(values, dtype=layout(self.meta, name, shard)[0])
                for name, values in zip(ARRAYS, (scores, classes, sizes), strict=True)
            }
        for name, array in arrays.items():
            shape = (len(batch), *layout(self.meta, name, shard)[1][1:])
            if array.shape != shape:
                raise ValueError(f'{name} of a batch are {array.shape}, expected {shape}.')
        if np.max(classes) >= self.meta['num_classes']:
            raise ValueError(f'Class id {np.max(classes)} among {self.meta["num_classes"]} classes.')
        finite = np.isfinite(arrays['scores']).reshape(len(batch), -1).all(axis=1)
        if not finite.all():
            key = self.keys[batch[int(np.argmin(finite))]]
            raise UserError(f'The scores of {key} are not finite in half precision: annotate with --precision fp32.')
        with disk_errors(self.path):
            if self._shard is None or self._shard.number != shard:
                self.close()
                self._shard = ShardWriter(self.path, self.meta, shard, row)
            self._shard.write(row, arrays)

    def finalise(self) -> None:
        """Record checksums and mark the store finished.

        Raises:
            UserError: some maps are still missing, or the disk is full.
        """
        self.close()
        self.meta = read_meta(self.path) or self.meta
        if self.complete:
            return
        if self.num_done < len(self.keys):
            raise UserError(f'{self.path} lacks the maps of {len(self.keys) - self.num_done} images: resume it first.')
        shards = range(num_shards(self.meta))
        names = ['keys.npy', *(file_name(name, shard) for name in ARRAYS for shard in shards)]
        with ThreadPoolExecutor() as pool:
            digests = list(pool.map(lambda name: file_digest(self.path / name), names))
        per_shard = self.meta['images_per_shard']
        skipped = [
            self.keys[shard * per_shard + int(row)]
            for shard in shards
            for row in np.flatnonzero(map_array(self.path / file_name('sizes', shard))[:, 0] == 0)
        ]
        meta = self.meta | {
            'complete': True,
            'skipped': skipped,
            'checksums': dict(zip(names, digests, strict=True)),
        }
        with disk_errors(self.path):
            write_meta(self.path, meta)
        self.meta = meta
        self._sweep()

    def close(self) -> None:
        """Let go of the shard being written. What `write` returned from is safe without it."""
        if self._shard is not None:
            self._shard.close()
            self._shard = None

    def __enter__(self) -> 'LabelWriter':
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _done(self, shard: int) -> int:
        progress = self.path / f'progress-{shard:05d}'
        return progress.stat().st_size if progress.exists() else 0

    def _begin(self, meta: dict, encoded: np.ndarray) -> None:
        """Start a directory: first the keys, then `meta.json`, so that a store with a `meta.json` has its keys."""
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f'{self.path} is a file: give a folder for the label store.')
        if self.path.is_dir():
            foreign = [file.name for file in self.path.iterdir() if file.name != 'keys.npy' and not is_temporary(file)]
            if foreign:
                raise UserError(f'{self.path} is not a label store and not empty ({foreign[0]}): give another folder.')
        buffer = io.BytesIO()
        np.save(buffer, encoded)
        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path / 'keys.npy', buffer.getvalue())
            write_meta(self.path, meta)

    def _check_same(self, stored: dict, settings: dict, encoded: np.ndarray) -> None:
        there = map_array(self.path / 'keys.npy')
        if len(there) != len(encoded) or not np.array_equal(there, encoded):
            ours, theirs = np.setdiff1d(encoded, there), np.setdiff1d(there, encoded)
            example = _decode((ours if len(ours) else theirs)[0])
            raise UserError(
                f'{self.path} was begun for other images ({len(there)} there, {len(encoded)} here, the first '
                f'difference is {example}): give another folder, or the images it was begun with.'
            )
        ours, theirs = _flat(settings), _flat(stored)
        names = [name for name in ours if ours[name] != theirs.get(name)]
        if names:
            said = ', '.join(
                'other class names' if name == 'class_names' else f'{name} {theirs.get(name)} instead of {ours[name]}'
                for name in names
            )
            raise UserError(
                f'{self.path} was begun with other settings ({said}): use the same ones, or give another folder.'
            )

    def _sweep(self) -> None:
        """Remove what a finished store does not need; also what a process killed in the middle left behind."""
        for file in self.path.iterdir():
            if file.name.startswith('progress-') or is_temporary(file):
                file.unlink(missing_ok=True)


def image_keys(reader: Any) -> list[str]:
    """Keys of a timm reader's images: their posix paths below the image folder."""
    return [Path(name).as_posix() for name in reader.filenames()]


def encode_keys(keys: Sequence[str]) -> np.ndarray:
    """Keys as a zero-padded UTF-8 array [n] in the same order; its sorting is that of the store.

    Raises:
        UserError: no keys, an empty key or a key that occurs twice.
    """
    if not len(keys):
        raise UserError('No images to annotate.')
    encoded = np.array([_encode(key) for key in keys], dtype='S')
    ordered = np.sort(encoded)
    twice = np.flatnonzero(ordered[1:] == ordered[:-1])
    if len(twice):
        raise UserError(f'Image {_decode(ordered[twice[0]])} is listed twice.')
    if not ordered[0]:
        raise UserError('An image has no name.')
    return encoded


def _encode(key: str) -> bytes:
    # Names that are not UTF-8 reach Python as lone surrogates.
    return key.encode('utf-8', 'surrogateescape')


def _decode(key: bytes) -> str:
    return key.decode('utf-8', 'surrogateescape')


def _check_settings(settings: dict) -> None:
    if not 1 <= settings['k'] <= settings['num_classes']:
        raise UserError(
            f'{settings["k"]} scores per location were asked of an annotator with {settings["num_classes"]} classes: '
            f'choose k from 1 to {settings["num_classes"]}.'
        )
    names = settings['class_names']
    if names is not None and len(names) != settings['num_classes']:
        raise UserError(f'{len(names)} class names for {settings["num_classes"]} classes.')
    view_rule(settings['view'])


def _flat(settings: dict, prefix: str = '') -> dict[str, Any]:
    """Nested settings as one dict of readable names, such as `annotator name`."""
    flat = {}
    for name, value in settings.items():
        flat |= _flat(value, f'{prefix}{name} ') if isinstance(value, dict) else {f'{prefix}{name}': value}
    return flat
