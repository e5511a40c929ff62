"""Reading a finished label store by memory map."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tokenlabel.errors import UserError
from tokenlabel.labels.store.files import file_name, layout, map_array, read_meta
from tokenlabel.labels.store.keys import Keys
from tokenlabel.labels.view_rule import view_rule
from tokenlabel.transforms.view import View


class LabelMap(NamedTuple):
    """Score map of an image: `scores` float16 and `classes` unsigned, both [k, S, S]; `view` map -> source image."""

    scores: np.ndarray
    classes: np.ndarray
    view: View


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
        """Map number `index` in the order of `keys`, as arrays of its own.

        Raises:
            UserError: the annotator skipped this image.
        """
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
        """What part of image number `index` its map covers. Raises `UserError` where it has none."""
        size = self.size(index)
        if size == (0, 0):
            raise UserError(f'{self.path} has no map of {self.keys[index]}: the annotator could not read this image.')
        return self.view_rule.view(*size)

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
