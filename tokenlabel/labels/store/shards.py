"""A label store read in bulk: whole shards, or many rows at once, also of the images that have no map."""

from typing import NamedTuple

import numpy as np

from tokenlabel.errors import UserError
from tokenlabel.labels.store.files import ARRAYS, file_name, layout, map_array
from tokenlabel.labels.store.reader import LabelStore


class StoreRows(NamedTuple):
    """Maps as a store holds them: `scores` and `classes` [n, k, S, S], `sizes` [n, 2], (0, 0) where there is no map."""

    scores: np.ndarray
    classes: np.ndarray
    sizes: np.ndarray


def read_shard(store: LabelStore, shard: int) -> StoreRows:
    """One shard, as arrays over its memory-mapped files.

    Raises:
        UserError: a file is missing, too short or of another type or shape (named).
    """
    arrays = []
    for name in ARRAYS:
        path = store.path / file_name(name, shard)
        array = map_array(path)
        dtype, shape = layout(store.meta, name, shard)
        if (array.dtype, array.shape) != (dtype, shape):
            raise UserError(f'{path} is damaged: {array.dtype} {array.shape}, where {dtype} {shape} belongs.')
        arrays.append(array)
    return StoreRows(*arrays)


def read_rows(store: LabelStore, rows: np.ndarray) -> StoreRows:
    """The maps at positions `rows` [n] of `store.keys`, in that order, as arrays of their own.

    Raises:
        UserError: as `read_shard`.
    """
    shards, within = np.divmod(np.asarray(rows), store.meta['images_per_shard'])
    read = StoreRows(
        *(np.empty((len(rows), *layout(store.meta, n, 0)[1][1:]), layout(store.meta, n, 0)[0]) for n in ARRAYS)
    )
    for shard in np.unique(shards):
        here = shards == shard
        for target, source in zip(read, read_shard(store, int(shard)), strict=True):
            target[here] = source[within[here]]
    return read


def class_folder(key: str) -> str | None:
    """Name of the folder that an image lies in: its class, in a layout of class folders. None where there is none."""
    parts = key.rsplit('/', 2)
    return parts[-2] if len(parts) > 1 else None
