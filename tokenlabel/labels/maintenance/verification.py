"""Verifies a label store: its files, the values in them, and the images that it should hold."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from tokenlabel.errors import UserError
from tokenlabel.files.reading import explained
from tokenlabel.labels.store import image_keys
from tokenlabel.labels.store.files import RESTORE, file_digest, file_name, num_shards
from tokenlabel.labels.store.keys import encode_keys
from tokenlabel.labels.store.meta import MetaFile, check_listed, read_meta
from tokenlabel.labels.store.reader import StoreRecord
from tokenlabel.labels.store.shards import StoreRows, read_shard, unusable


def verify_store(path: str | Path, reader: Any | None = None, on_file: Callable[[], None] = lambda: None) -> list[str]:
    """Problems of a store, one sentence each that names the file; an empty list if there are none.

    Each file is compared with its recorded checksum, in threads. A checksum only shows that a file has changed, so
    dtypes, shapes, the order of the keys, scores, class ids and image sizes are checked too. If `meta.json` is damaged,
    the other files are not checked, because only `meta.json` describes them.

    Args:
        path: the store.
        reader: the images that the store should hold, with their class numbering; None checks the store alone.
        on_file: called after each file's checksum.

    Raises:
        UserError: there is no store.
    """
    path = Path(path)
    try:
        file = MetaFile.read(path)
    except UserError as error:
        return [str(error)]
    if file is None:
        raise UserError(f'No label store at {path}: make one with `tokenlabel annotate`.')
    if not file.meta['complete']:
        return [f'{path} is unfinished: run the command that began it again to resume.']
    try:
        check_listed(path, file.meta)
    except UserError as error:
        return [str(error)]
    problems = []
    if file.has_checksum and not file.as_written:
        problems.append(f'{path / "meta.json"} has changed since it was written, though it says the same: {RESTORE}.')
    problems += [*_wrong_checksums(path, file.meta, on_file), *_unknown_files(path, file.meta)]
    try:
        store = StoreRecord(path)
    except UserError as error:
        return [*problems, *_unless_missing(error)]
    with ThreadPoolExecutor() as pool:
        for found in pool.map(lambda shard: list(_wrong_maps(store, shard)), range(num_shards(store.meta))):
            problems += found
    return problems + (list(_differences(store, reader)) if reader is not None else [])


def num_files(path: str | Path) -> int:
    """Number of a store's files that have a checksum; 0 if its `meta.json` cannot be read."""
    try:
        return len((read_meta(path) or {}).get('checksums', {}))
    except UserError:
        return 0


def lacks_checksum(path: str | Path) -> bool:
    """Whether a store comes from an earlier version, whose `meta.json` has no checksum of itself."""
    file = MetaFile.read(path)
    return file is not None and not file.has_checksum


def _wrong_checksums(path: Path, meta: dict, on_file: Callable[[], None]) -> Iterator[str]:
    def compare(name: str) -> str | None:
        try:
            same = file_digest(path / name) == meta['checksums'][name]
        except FileNotFoundError:
            return f'{path / name} is missing.'
        except OSError as error:
            return f'{path / name} cannot be read {explained(error)}.'
        finally:
            on_file()
        return None if same else f'{path / name} has changed since it was written: its checksum differs.'

    with ThreadPoolExecutor() as pool:
        yield from filter(None, pool.map(compare, meta['checksums']))


def _unknown_files(path: Path, meta: dict) -> Iterator[str]:
    """Messages about arrays that do not belong to the store, such as an extra shard."""
    for name in sorted(file.name for file in path.glob('*.npy')):
        if name not in meta['checksums']:
            yield f'{path / name} is not a file of this store, which has {num_shards(meta)} shards: remove it.'


def _unless_missing(error: UserError) -> list[str]:
    """The message of an error, unless a file is missing, which the checksums report already."""
    return [] if isinstance(error.__cause__, FileNotFoundError) else [str(error)]


def _wrong_maps(store: StoreRecord, shard: int) -> Iterator[str]:
    try:
        maps = read_shard(store, shard)
    except UserError as error:
        yield from _unless_missing(error)
        return
    there = maps.sizes.any(1)
    for name, wrong, what in (*unusable(store, maps), _disordered(maps)):
        rows = np.flatnonzero(wrong & there)
        if len(rows):
            yield f'{store.path / file_name(name, shard)}: {_images(store, shard, rows)} {what}.'
    recorded = np.isin(np.arange(len(there)) + shard * store.meta['images_per_shard'], store.skipped_rows)
    rows = np.flatnonzero(recorded == there)
    if len(rows):
        file = store.path / file_name('sizes', shard)
        yield f'{file}: {_images(store, shard, rows)} should have a size exactly if meta.json does not skip it.'


def _disordered(maps: StoreRows) -> tuple[str, np.ndarray, str]:
    disordered = (maps.scores[:, 1:] > maps.scores[:, :-1]).any((1, 2, 3))
    return 'scores', disordered, 'has a cell whose best score is not the first'


def _images(store: StoreRecord, shard: int, rows: np.ndarray) -> str:
    first = store.keys[shard * store.meta['images_per_shard'] + int(rows[0])]
    return first if len(rows) == 1 else f'{first} (and {len(rows) - 1} more)'


def _differences(store: StoreRecord, reader: Any) -> Iterator[str]:
    """Messages about differences between a store and the images of a reader."""
    keys = image_keys(reader)
    encode_keys(keys)
    missing = np.flatnonzero(store.keys.rows(keys) < 0)
    if len(missing):
        yield f'{store.path} has no maps of {_first_of([keys[row] for row in missing])}.'
    extra = sorted(set(store.keys[:]) - set(keys))
    if extra:
        yield f'{store.path} has maps of images that are not there: {_first_of(extra)}.'
    folders = getattr(reader, 'class_to_idx', {})
    names = sorted(folders, key=folders.get)
    store_names = store.class_names
    if store_names is None or not names:
        return
    unknown = sorted(set(names) - set(store_names))
    # if no name is shared, these are other classes, which need a class map
    if unknown and (len(unknown) < len(names) or len(names) == len(store_names)):
        yield f'{store.path} has no class {unknown[0]}, which is a folder of the images ({len(unknown)} such).'
    elif len(store_names) == len(names) and store_names != names:
        number = next(i for i, pair in enumerate(zip(store_names, names, strict=True)) if pair[0] != pair[1])
        yield f'{store.path} calls class {number} {store_names[number]}, but the image folder {names[number]}.'


def _first_of(keys: list[str]) -> str:
    return f'{len(keys)} images (the first: {", ".join(keys[:3])})'
