"""Opens and checks a finished label store, and reads it by memory map."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tokenlabel.errors import UserError
from tokenlabel.labels.store.files import RESTORE, check_arrays, file_name, layout, map_array
from tokenlabel.labels.store.keys import Keys, read_keys
from tokenlabel.labels.store.meta import check_listed, read_meta
from tokenlabel.labels.view_rule import view_rule
from tokenlabel.transforms.view import View


class LabelMap(NamedTuple):
    """Score map of an image: `scores` float16 and `classes` unsigned, [k, S, S]; `view` from map to source image."""

    scores: np.ndarray
    classes: np.ndarray
    view: View


class StoreRecord:
    """The checked `meta.json` and `keys.npy` of a finished label store. Its maps are not checked.

    Attributes:
        path: the directory.
        meta: contents of `meta.json`.
        num_classes, class_names: classes of the annotator; names are None if unknown.
        k, grid: scores kept per cell, and cells (S, S).
        view_rule: the part of an image that its map covers.
        keys: image keys as a sorted sequence of str.
        skipped_rows: int64, positions of the images that have no map.

    Raises:
        UserError: the store is missing, unfinished or of a newer version, or one of the two files is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.meta = read_meta(self.path)
        if self.meta is None:
            raise UserError(f'No label store at {self.path}: make one with `tokenlabel annotate`.')
        if not self.meta['complete']:
            raise UserError(f'Label store {self.path} is unfinished: run the command that began it again to resume.')
        self.view_rule = view_rule(self.meta['view'])
        self.num_classes: int = self.meta['num_classes']
        self.class_names: list[str] | None = self.meta['class_names']
        self.k: int = self.meta['k']
        self.grid: tuple[int, int] = tuple(self.meta['grid'])
        self.keys = Keys(read_keys(self.path, self.meta))
        check_listed(self.path, self.meta)
        self.skipped_rows = self.keys.rows(self.meta['skipped'])
        # rows must ascend; unknown keys have row -1
        disorder = np.flatnonzero(np.diff(self.skipped_rows, prepend=-1) <= 0)
        if len(disorder):
            name = self.meta['skipped'][int(disorder[0])]
            raise UserError(
                f'{self.path / "meta.json"} skips {name!r}, which is not in keys.npy, or is out of order: {RESTORE}.'
            )

    def __len__(self) -> int:
        return len(self.keys)


class LabelStore(StoreRecord):
    """A finished label store, opened for reading. Opening checks `meta.json`, the keys, and the headers and lengths of
    the other files. Each map is checked when it is read.

    It can be pickled and shared with worker processes, which share the maps in the operating system's page cache.

    Raises:
        UserError: as `StoreRecord`, or a file is missing, cannot be read, or has another dtype, shape or length.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        check_arrays(self.path, self.meta)
        self._shards: dict[tuple[str, int], np.ndarray] = {}

    def __reduce__(self) -> tuple:
        return LabelStore, (self.path,)

    def __getitem__(self, index: int) -> LabelMap:
        """Map number `index` in the order of `keys`, as copies.

        Raises:
            UserError: the annotator skipped this image, or its map has scores that are not finite or a class outside
                [0, num_classes).
        """
        scores, classes = self._row('scores', index).copy(), self._row('classes', index).copy()
        if not np.isfinite(scores).all():
            raise self._damage('scores', index, 'has scores that are not finite')
        if classes.max() >= self.num_classes:
            raise self._damage('classes', index, f'names class {classes.max()} of {self.num_classes}')
        return LabelMap(scores, classes, self.view(index))

    def indices(self, keys: Iterable[str]) -> np.ndarray:
        """Position of each key, int64 [len(keys)]; -1 if the store has no map for it."""
        rows = self.keys.rows(keys)
        rows[np.isin(rows, self.skipped_rows)] = -1
        return rows

    def size(self, index: int) -> tuple[int, int]:
        """Width and height of image number `index` in pixels."""
        width, height = self._row('sizes', index)
        return int(width), int(height)

    def view(self, index: int) -> View:
        """The View from the map of image number `index` to the image. Raises `UserError` if it has no map."""
        size = self.size(index)
        if size == (0, 0):
            raise UserError(f'{self.path} has no map of {self.keys[index]}: the annotator could not read this image.')
        if 0 in size:
            raise self._damage('sizes', index, f'is {size[0]} x {size[1]} pixels')
        return self.view_rule.view(*size)

    def _row(self, name: str, index: int) -> np.ndarray:
        self._check(index)
        shard, row = divmod(index, self.meta['images_per_shard'])
        if (name, shard) not in self._shards:
            path, expected = self.path / file_name(name, shard), layout(self.meta, name, shard)
            self._shards[name, shard] = map_array(path, expected, scattered=True)
        return self._shards[name, shard][row]

    def _damage(self, name: str, index: int, what: str) -> UserError:
        file = self.path / file_name(name, index // self.meta['images_per_shard'])
        return UserError(
            f'{file} is damaged: {self.keys[index]} {what}; `tokenlabel labels verify {self.path}` finds all such, '
            f'then {RESTORE}.'
        )

    def _check(self, index: int) -> None:
        if not 0 <= index < len(self):
            raise IndexError(f'Map {index} of a label store of {len(self)}.')
