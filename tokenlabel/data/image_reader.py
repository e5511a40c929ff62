"""What all readers of images have in common."""

import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
from timm.data.readers.reader import Reader

from tokenlabel.errors import UserError
from tokenlabel.files.folder_walk import natural_key
from tokenlabel.labels.store.keys import Names

MAX_CLASS = 2**24  # a larger number is no class, and tables of as many would fill the memory


class ImageReader(Reader):
    """Images by number, as timm's readers. `reader[i]` is (binary stream, class or -1); it can be pickled and forked.

    `filename(i)` is the image's key: a posix path, unique, and the same wherever the data lies. `filename(i,
    absolute=True)` says where it lies, for messages.

    Attributes:
        source: what it was opened from.
        keys: of all images.
        targets: int64 [images], classes; -1 where there is none.
        class_to_idx: class name -> class, {} where classes have no names.

    Raises:
        UserError: a key that occurs twice.
    """

    def __init__(self, source: str, keys: Sequence[str], targets: np.ndarray, class_to_idx: dict[str, int]) -> None:
        super().__init__()
        self.source = source
        self.keys = Names.of(keys)
        self.targets = targets
        self.class_to_idx = class_to_idx
        if len(set(keys)) < len(keys):
            key, count = Counter(keys).most_common(1)[0]
            raise UserError(f'{source} holds {count} images of the name {key}: names have to be unique.')
        if class_to_idx and targets.max() >= len(class_to_idx):
            raise UserError(
                f'{source} says that {keys[int(targets.argmax())]} has class {targets.max()}, but names '
                f'{len(class_to_idx)} classes: correct its labels, or name all classes.'
            )

    @property
    def labelled(self) -> bool:
        """Whether every image has a class."""
        return bool((self.targets >= 0).all())

    @property
    def class_names(self) -> list[str]:
        """Of the classes in order; empty where classes have no names."""
        return sorted(self.class_to_idx, key=self.class_to_idx.get)

    @property
    def num_classes(self) -> int:
        """Classes that are named, or that the labels count up to; 0 where images have none."""
        return len(self.class_to_idx) or int(self.targets.max()) + 1

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> tuple[BinaryIO, int]:
        return self._open(index), int(self.targets[index])

    @abstractmethod
    def _open(self, index: int) -> BinaryIO:
        """The encoded image."""

    def _filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        if basename:
            return self.keys[index].rpartition('/')[2]
        return f'{self.source}/{self.keys[index]}' if absolute else self.keys[index]


def folder_classes(folders: Sequence[str]) -> tuple[np.ndarray, dict[str, int]]:
    """Targets and classes of images by the names of their folders; none where some lie in the root (named '')."""
    return (np.full(len(folders), -1, dtype=np.int64), {}) if '' in folders else _number(folders)


def label_classes(labels: Sequence[str | None]) -> tuple[np.ndarray, dict[str, int]]:
    """Targets and classes of images by their labels, numbers or names; -1 for None.

    Raises:
        UserError: a number beyond what classes can be.
    """
    known = {label for label in labels if label is not None}
    if all(re.fullmatch(r'-?\d+', label) for label in known):
        beyond = [label for label in known if len(label) > 18 or not -1 <= int(label) < MAX_CLASS]
        if beyond:
            raise UserError(f'A label of the images is {min(beyond)}: classes are numbers from 0 on; correct it.')
        return np.array([-1 if label is None else int(label) for label in labels], dtype=np.int64), {}
    return _number(labels)


def _number(names: Sequence[str | None]) -> tuple[np.ndarray, dict[str, int]]:
    """Names numbered in natural order, as timm numbers folders."""
    ordered = sorted({name for name in names if name is not None}, key=natural_key)
    class_to_idx = {name: number for number, name in enumerate(ordered)}
    return np.array([class_to_idx.get(name, -1) for name in names], dtype=np.int64), class_to_idx
