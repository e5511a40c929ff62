"""The base class of all image readers."""

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

MAX_CLASS = 2**24  # limit for damaged labels: tables of more classes would fill the memory


class ImageReader(Reader):
    """Indexed images with timm's reader interface: `reader[i]` is (binary stream, class or -1). Can be pickled.

    `filename(i)` is the image's key, a unique posix path that does not depend on where the data is stored.
    `filename(i, absolute=True)` is its location, for messages.

    Attributes:
        source: path or name that was opened.
        keys: keys of all images.
        targets: int64 [images], class of each image; -1 for none.
        class_to_idx: class name -> class; {} if classes have no names.

    Raises:
        UserError: a key occurs twice, or a class is not among the named ones.
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
        """Names of the classes in order; empty if classes have no names."""
        return sorted(self.class_to_idx, key=self.class_to_idx.get)

    @property
    def num_classes(self) -> int:
        """Number of named classes, or else the largest label + 1; 0 without labels."""
        return len(self.class_to_idx) or int(self.targets.max()) + 1

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> tuple[BinaryIO, int]:
        return self._open(index), int(self.targets[index])

    @abstractmethod
    def _open(self, index: int) -> BinaryIO:
        """A stream of the encoded image."""

    def _filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        if basename:
            return self.keys[index].rpartition('/')[2]
        return f'{self.source}/{self.keys[index]}' if absolute else self.keys[index]


def folder_classes(folders: Sequence[str]) -> tuple[np.ndarray, dict[str, int]]:
    """Targets and `class_to_idx` from the images' folder names; no classes if an image is in the root (named '')."""
    return (np.full(len(folders), -1, dtype=np.int64), {}) if '' in folders else _number(folders)


def label_classes(labels: Sequence[str | None]) -> tuple[np.ndarray, dict[str, int]]:
    """Targets and `class_to_idx` from the images' labels, which are numbers or names; -1 for None.

    Raises:
        UserError: a number is outside the range of classes.
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
