"""Bulk reading of a label store: whole shards or many rows, including images without a map."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from tokenlabel.errors import UserError
from tokenlabel.labels.store.files import ARRAYS, RESTORE, file_name, layout, map_array
from tokenlabel.labels.store.reader import StoreRecord


class StoreRows(NamedTuple):
    """Maps as stored: `scores` and `classes` [n, k, S, S], `sizes` [n, 2] (width, height), (0, 0) without a map."""

    scores: np.ndarray
    classes: np.ndarray
    sizes: np.ndarray


def read_shard(store: StoreRecord, shard: int) -> StoreRows:
    """One shard, as arrays over its memory-mapped files. Values are not checked; see `check_rows`.

    Raises:
        UserError: a file is missing, too short or of another type or shape (named).
    """
    return StoreRows(*(map_array(store.path / file_name(n, shard), layout(store.meta, n, shard)) for n in ARRAYS))


def read_rows(store: StoreRecord, rows: np.ndarray) -> StoreRows:
    """Checked copies of the maps at positions `rows` [n] of `store.keys`, in that order.

    Raises:
        UserError: as `read_shard` and `check_rows`.
    """
    rows = np.asarray(rows)
    shards, within = np.divmod(rows, store.meta['images_per_shard'])
    read = StoreRows(
        *(np.empty((len(rows), *layout(store.meta, n, 0)[1][1:]), layout(store.meta, n, 0)[0]) for n in ARRAYS)
    )
    for shard in np.unique(shards):
        here = shards == shard
        for target, source in zip(read, read_shard(store, int(shard)), strict=True):
            target[here] = source[within[here]]
    check_rows(store, rows, read)
    return read


def check_rows(store: StoreRecord, rows: np.ndarray, maps: StoreRows) -> None:
    """Raises `UserError`, with the image's name, if `maps` at positions `rows` of a store hold invalid values."""
    for name, wrong, what in unusable(store, maps):
        if wrong.any():
            row = int(rows[wrong.argmax()])
            file = store.path / file_name(name, row // store.meta['images_per_shard'])
            raise UserError(f'{file} is damaged: {store.keys[row]} {what}; {RESTORE}.')


def unusable(store: StoreRecord, maps: StoreRows) -> Iterator[tuple[str, np.ndarray, str]]:
    """Invalid values in maps: (name of the array, bool mask of the affected rows [n], description)."""
    there = maps.sizes.any(1)
    yield 'scores', ~np.isfinite(maps.scores).all((1, 2, 3)) & there, 'has scores that are not finite'
    beyond = (maps.classes >= store.num_classes).any((1, 2, 3)) & there
    yield 'classes', beyond, f'names a class outside the {store.num_classes} of the store'
    yield 'sizes', (maps.sizes == 0).any(1) & there, 'has a width but no height, or a height but no width'


def class_folder(key: str) -> str | None:
    """Name of the folder of an image, which is its class in a layout of class folders; None in the root."""
    parts = key.rsplit('/', 2)
    return parts[-2] if len(parts) > 1 else None
