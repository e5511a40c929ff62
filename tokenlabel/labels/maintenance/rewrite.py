"""Label stores from label stores: merge several, or take a subset of one."""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice, pairwise
from pathlib import Path

import numpy as np

from tokenlabel.errors import UserError
from tokenlabel.labels.store import LabelStore, LabelWriter
from tokenlabel.labels.store.shards import StoreRows, class_folder, read_rows

SYNCED_TOGETHER = 16  # batches per fsync
SAME = ('annotator', 'num_classes', 'class_names', 'k', 'grid', 'view')


def merge_stores(
    stores: Sequence[LabelStore], path: str | Path, on_batch: Callable[[int, int], None] = lambda count, total: None
) -> LabelStore:
    """Merges several stores into one; the same call resumes after a stop.

    Args:
        stores: of the same annotator, classes, grid, k and view rule, and of different images.
        path: the store to write.
        on_batch: called with (images done, images in total), first for those of earlier runs and then whenever batches
            are on disk.

    Raises:
        UserError: the stores differ in their settings, or two of them hold the same image.
    """
    first = stores[0]
    for other in stores[1:]:
        differing = [name for name in SAME if first.meta[name] != other.meta[name]]
        if differing:
            differences = _differences(first, other, differing)
            raise UserError(f'{first.path} and {other.path} cannot be merged, as they differ in {differences}.')
    keys = [key for store in stores for key in store.keys[:]]
    owners = np.repeat(np.arange(len(stores)), [len(store) for store in stores])
    rows = np.concatenate([np.arange(len(store)) for store in stores])
    order = np.argsort(np.concatenate([store.keys.encoded for store in stores]), kind='stable')
    for one, two in pairwise(order):
        if keys[one] == keys[two]:
            where = ' and '.join(str(stores[owners[i]].path) for i in (one, two))
            raise UserError(f'{keys[one]} is in both {where}: take it out of one with `labels.py subset`.')
    owners, rows = owners[order], rows[order]

    def read(batch: range) -> StoreRows:
        here, within = owners[batch.start : batch.stop], rows[batch.start : batch.stop]
        maps = None
        for owner in np.unique(here):
            part = read_rows(stores[owner], within[here == owner])
            maps = maps or StoreRows(*(np.empty((len(batch), *array.shape[1:]), array.dtype) for array in part))
            for target, source in zip(maps, part, strict=True):
                target[here == owner] = source
        return maps

    return _write(stores, [keys[i] for i in order], read, path, on_batch)


def subset_store(
    store: LabelStore,
    keys: Iterable[str],
    path: str | Path,
    on_batch: Callable[[int, int], None] = lambda count, total: None,
) -> LabelStore:
    """Copies some images of a store into a new one; the same call resumes after a stop.

    Args:
        store: the source.
        keys: keys of the images to keep, in any order.
        path: the store to write.
        on_batch: as in `merge_stores`.

    Raises:
        UserError: there are no keys, or the store does not hold all of them.
    """
    keys = list(keys)
    rows = store.keys.rows(keys)
    missing = np.flatnonzero(rows < 0)
    if len(missing):
        raise UserError(
            f'{store.path} does not hold {len(missing)} of the {len(keys)} images '
            f'(the first: {", ".join(keys[i] for i in missing[:3])}).'
        )
    if not keys:
        raise UserError(f'No image of {store.path} was chosen.')
    rows = np.unique(rows)
    return _write(
        [store], [store.keys[int(row)] for row in rows], lambda batch: read_rows(store, rows[batch]), path, on_batch
    )


def keys_of_classes(store: LabelStore, classes: Iterable[str]) -> list[str]:
    """Keys of the images that lie in folders of these names.

    Raises:
        UserError: no folder has one of the names.
    """
    keys = store.keys[:]
    chosen = set(classes)
    unknown = chosen - {class_folder(key) for key in keys}
    if unknown:
        raise UserError(f'{store.path} has no image in a folder {min(unknown)}: give names of class folders.')
    return [key for key in keys if class_folder(key) in chosen]


def _write(
    sources: Sequence[LabelStore],
    keys: list[str],
    read: Callable[[range], StoreRows],
    path: str | Path,
    on_batch: Callable[[int, int], None],
) -> LabelStore:
    """Writes a store with the settings of `sources`; `read` returns the maps of a range of the sorted `keys`."""
    if Path(path).resolve() in {store.path.resolve() for store in sources}:
        raise UserError(f'{path} would be written over itself: give another folder.')
    settings = {name: sources[0].meta[name] for name in (*SAME, 'batch_size')}
    with LabelWriter(path, keys, **settings) as writer:
        on_batch(writer.num_done, len(keys))
        batches = writer.batches()
        while group := list(islice(batches, SYNCED_TOGETHER)):
            writer.write_all([(batch, *read(batch)) for batch in group])
            on_batch(sum(map(len, group)), len(keys))
        writer.finalise()
    return LabelStore(path)


def _differences(one: LabelStore, other: LabelStore, names: list[str]) -> str:
    """The settings that differ, with their values if these are short."""
    differences = []
    for name in names:
        values = [str(store.meta[name]) for store in (one, other)]
        short = max(map(len, values)) <= 40
        differences.append(f'{name} ({values[0]} and {values[1]})' if short else name.replace('_', ' '))
    return ', '.join(differences)
