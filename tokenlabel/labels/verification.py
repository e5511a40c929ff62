"""Whether a label store is whole: every file, every number in it, and every image it should answer for."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from tokenlabel.errors import UserError
from tokenlabel.labels.store import LabelStore, image_keys
from tokenlabel.labels.store.files import ARRAYS, file_digest, file_name, num_shards, read_meta
from tokenlabel.labels.store.keys import encode_keys
from tokenlabel.labels.store.shards import StoreRows, read_shard

FIELDS = (
    *('annotator', 'view', 'num_classes', 'class_names', 'k', 'grid', 'num_images', 'batch_size', 'images_per_shard'),
    *('complete', 'skipped', 'checksums'),
)


def verify_store(path: str | Path, reader: Any | None = None, on_file: Callable[[], None] = lambda: None) -> list[str]:
    """All that is wrong with a store, one sentence each, the file named; an empty list for a sound one.

    Each file is compared with its recorded checksum, in threads; type and shape of each array, order of the keys,
    finite scores with the best first, class ids and image sizes are checked besides, as a checksum only tells that a
    file has changed.

    Args:
        path: the store.
        reader: the images it should have maps for, in the numbering of classes that it should have; None checks the
            store alone.
        on_file: called each time a file has been compared with its checksum.

    Raises:
        UserError: there is no store, or one of a newer version.
    """
    path = Path(path)
    meta = read_meta(path)
    if meta is None:
        raise UserError(f'No label store at {path}: make one with tools/annotate.py.')
    missing = [field for field in FIELDS if field not in meta]
    if missing:
        return [f'{path / "meta.json"} lacks {", ".join(missing)}.']
    if not meta['complete']:
        return [f'{path} is unfinished: run the command that began it again to resume.']
    problems = list(_wrong_checksums(path, meta, on_file))
    try:
        store = LabelStore(path)
    except UserError as error:
        return [*problems, str(error)]
    problems += _wrong_keys(store)
    with ThreadPoolExecutor() as pool:
        for found in pool.map(lambda shard: list(_wrong_maps(store, shard)), range(num_shards(meta))):
            problems += found
    return problems + (list(_differences(store, reader)) if reader is not None else [])


def num_files(path: str | Path) -> int:
    """Files of a store that have a checksum."""
    return len((read_meta(path) or {}).get('checksums', {}))


def _wrong_checksums(path: Path, meta: dict, on_file: Callable[[], None]) -> Iterator[str]:
    expected = ['keys.npy', *(file_name(name, shard) for name in ARRAYS for shard in range(num_shards(meta)))]
    unlisted = [name for name in expected if name not in meta['checksums']]
    if unlisted:
        yield f'{path / "meta.json"} has no checksum of {", ".join(unlisted)}.'

    def compare(name: str) -> str | None:
        try:
            same = file_digest(path / name) == meta['checksums'][name]
        except FileNotFoundError:
            return f'{path / name} is missing.'
        except OSError as error:
            return f'{path / name} cannot be read ({error.strerror}).'
        finally:
            on_file()
        return None if same else f'{path / name} has changed since it was written: its checksum differs.'

    with ThreadPoolExecutor() as pool:
        yield from filter(None, pool.map(compare, meta['checksums']))


def _wrong_keys(store: LabelStore) -> Iterator[str]:
    file, encoded = store.path / 'keys.npy', store.keys.encoded
    disorder = np.flatnonzero(encoded[1:] <= encoded[:-1])
    if len(disorder):
        yield f'{file} is not sorted, or names an image twice: {store.keys[int(disorder[0]) + 1]}.'
    if not encoded.all():
        yield f'{file} has an image without a name.'


def _wrong_maps(store: LabelStore, shard: int) -> Iterator[str]:
    try:
        maps = read_shard(store, shard)
    except UserError as error:
        # a missing file is named by its checksum already
        if not isinstance(error.__cause__, FileNotFoundError):
            yield str(error)
        return
    there = maps.sizes[:, 0] > 0
    for name, wrong, what in _checks(store, maps):
        rows = np.flatnonzero(wrong & there)
        if len(rows):
            yield f'{store.path / file_name(name, shard)}: {_images(store, shard, rows)} {what}.'
    recorded = np.isin(
        np.arange(len(there)) + shard * store.meta['images_per_shard'], store.keys.rows(store.meta['skipped'])
    )
    rows = np.flatnonzero(recorded == there)
    if len(rows):
        file = store.path / file_name('sizes', shard)
        yield f'{file}: {_images(store, shard, rows)} should have a size exactly if meta.json does not skip it.'


def _checks(store: LabelStore, maps: StoreRows) -> Iterator[tuple[str, np.ndarray, str]]:
    """(array, whether it is wrong of each row, what is wrong)."""
    yield 'scores', ~np.isfinite(maps.scores).all((1, 2, 3)), 'has scores that are not finite'
    disordered = (maps.scores[:, 1:] > maps.scores[:, :-1]).any((1, 2, 3))
    yield 'scores', disordered, 'has a cell whose best score is not the first'
    beyond = (maps.classes >= store.num_classes).any((1, 2, 3))
    yield 'classes', beyond, f'names a class beyond the {store.num_classes} that there are'
    yield 'sizes', (maps.sizes == 0).any(1), 'has a width but no height'


def _images(store: LabelStore, shard: int, rows: np.ndarray) -> str:
    first = store.keys[shard * store.meta['images_per_shard'] + int(rows[0])]
    return first if len(rows) == 1 else f'{first} (and {len(rows) - 1} more)'


def _differences(store: LabelStore, reader: Any) -> Iterator[str]:
    """Between a store and the images it is to be used with."""
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
    ours = store.class_names
    if ours is None or not names:
        return
    unknown = sorted(set(names) - set(ours))
    # quite other names are another set of classes, which a class map joins to these
    if unknown and (len(unknown) < len(names) or len(names) == len(ours)):
        yield f'{store.path} has no class {unknown[0]}, which is a folder of the images ({len(unknown)} such).'
    elif len(ours) == len(names) and ours != names:
        number = next(i for i, pair in enumerate(zip(ours, names, strict=True)) if pair[0] != pair[1])
        yield f'{store.path} calls class {number} {ours[number]}, the image folder has {names[number]} there.'


def _first_of(keys: list[str]) -> str:
    return f'{len(keys)} images (the first: {", ".join(keys[:3])})'
