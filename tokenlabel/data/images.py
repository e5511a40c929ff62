"""Images with their classes, joined to the score maps of a label store."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from tokenlabel.data.readers import open_images
from tokenlabel.data.sample import Sample
from tokenlabel.errors import UserError
from tokenlabel.files.folder_walk import report
from tokenlabel.image_files.reading import open_image
from tokenlabel.image_files.unreadable import named
from tokenlabel.labels.class_map import class_numbers, map_classes, match_classes, read_class_map
from tokenlabel.labels.store import LabelStore, image_keys
from tokenlabel.transforms.view import View


class Numbering(NamedTuple):
    """The labels of images in some class numbering.

    Attributes:
        targets: int64 [n], the class of each image of the reader; -1 for none.
        class_names: names of the classes in order; empty if unknown.
        num_classes: number of classes.
        unlabelled: reason why images have no label; None if they have one.
        remark: a note for the user; None if there is none.
    """

    targets: np.ndarray
    class_names: list[str]
    num_classes: int
    unlabelled: str | None = None
    remark: str | None = None


class LabeledImages(Dataset):
    """Images with their class and, given a label store, their score maps.

    Score maps are returned as stored, or converted by the class map. Targets are looked up in them once per batch, on
    the training device.

    Labels follow the class numbering of the store if the class names or the class counts match, see `match_classes`;
    otherwise images have no labels.

    Args:
        root: images in any layout that `open_images` reads, such as a folder of class folders.
        transform: Pillow image, as `tokenlabel.image_files.reading.open_image` returns it -> (uint8 [3, H, W], View);
            see `tokenlabel.transforms.image`. It calls `decode` for RGB pixels, or has JPEG files decoded smaller.
        label_store: folder written by `tokenlabel annotate` for `root`; None to train with image labels.
        seed: together with epoch and index, it determines all augmentation of a sample.
        class_map: file that assigns annotator classes to image classes, see `tokenlabel.labels.class_map`; labels and
            maps then use the image classes.
        split: as in `open_images`.

    Attributes:
        numbering: the labels and their classes; see `numbered_as`.
        class_names: names of the classes of labels and maps in order; empty if unknown.
        num_classes: number of classes.
        unlabelled: reason why images have no label; None if they have one.
        num_skipped: number of images left out because the annotator could not read them.
        num_absent: number of annotated images that are missing here, so that their maps are unused.
        first_absent: key of the first of these; empty if there is none.

    Raises:
        UserError: there are no images; the store is missing, lacks maps of some images or has other classes; or the
            class map does not fit. On reading: an image cannot be decoded.
    """

    def __init__(
        self,
        root: str | Path,
        transform: Callable[[Image.Image], tuple[Tensor, View]],
        label_store: str | Path | None = None,
        seed: int = 0,
        class_map: str | Path | None = None,
        split: str = 'train',
    ) -> None:
        self.root = str(root)
        self.transform = transform
        self.seed = seed
        self.reader = open_images(root, split)
        self.num_skipped = 0
        self.num_absent, self.first_absent = 0, ''
        self.labels: LabelStore | None = None
        self.class_map: str | Path | None = class_map
        self.numbering = Numbering(
            self.reader.targets,
            self.reader.class_names,
            self.reader.num_classes,
            None if self.reader.labelled else self._where_labels_are_missing(),
        )
        self._images = np.arange(len(self.reader))
        self._table: np.ndarray | None = None
        if label_store is not None:
            self.labels = self._open_store(Path(label_store))
            self._rows = self._join(self.labels)
            self._share_classes(self.labels)
        elif class_map is not None:
            raise UserError(f'The class map {class_map} is for the classes of an annotator: set label_store as well.')

    @property
    def class_names(self) -> list[str]:
        return self.numbering.class_names

    @property
    def num_classes(self) -> int:
        return self.numbering.num_classes

    @property
    def unlabelled(self) -> str | None:
        return self.numbering.unlabelled

    @property
    def metainfo(self) -> dict:
        """Meta information for MMEngine: the classes, and the number of images left out."""
        return {'classes': tuple(self.class_names), 'num_skipped': self.num_skipped}

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Sample:
        """Sample number `index`; with a `SampleIndex`, augmentation differs in each epoch."""
        with self._read(index) as image, random_state_of(self.seed, getattr(index, 'epoch', 0), index):
            pixels, view = self.transform(image)
        label = int(self.numbering.targets[self._images[index]])
        sample = Sample(image=pixels, label=label, index=int(index))
        if self.labels is not None:
            label_map = self.labels[int(self._rows[index])]
            scores, classes = label_map.scores, label_map.classes
            if self._table is not None:
                scores, classes = map_classes(scores, classes, self._table)
            sample |= {
                'view': view.tensor(),
                'scores': torch.from_numpy(np.array(scores)),
                'classes': torch.from_numpy(np.asarray(classes).astype(np.int32)),
                'map_view': label_map.view.tensor(),
            }
        return sample

    def key(self, index: int) -> str:
        """Path of an image below the root, with forward slashes: its name in a label store."""
        return self.reader.filename(int(self._images[index]))

    def numbered_as(self, class_names: Sequence[str] | None, num_classes: int, whose: str) -> Numbering:
        """The labels in another class numbering, or no labels if neither class names nor class counts match.

        Args:
            class_names: target class names, if known.
            num_classes: number of target classes.
            whose: owner of the target classes, for the message in `unlabelled`.
        """
        table = match_classes(self.class_names, self.num_classes, class_names, num_classes)
        numbers = class_numbers(self.class_names)
        if not len(table) or (table < 0).any():
            from_one = bool(self.class_names) and numbers is None and _count_from_one(self.class_names)
            hint = ' (its folders count from 1: name them after the classes, or count from 0)' if from_one else ''
            unlabelled = self.unlabelled or (
                f'its {self.num_classes} classes are not among the {num_classes} of {whose}, by name or by count{hint}'
            )
            return Numbering(np.full_like(self.numbering.targets, -1), list(class_names or []), num_classes, unlabelled)
        remark = None
        if numbers is not None and numbers.min() > 0 and set(self.class_names).isdisjoint(class_names or ()):
            remark = f'{self.root}: folders such as {self.class_names[0]} are read as class numbers from 0.'
        # folder names that served as class numbers may not name all target classes
        own_names = self.class_names if len(self.class_names) == num_classes else []
        targets = np.where(self.numbering.targets >= 0, table[self.numbering.targets], -1)
        return Numbering(targets, list(class_names or own_names), num_classes, self.unlabelled, remark)

    def renumber(self, numbering: Numbering) -> None:
        """Sets the labels to a result of `numbered_as`."""
        self.numbering = numbering
        if numbering.remark:
            report(numbering.remark)

    @contextmanager
    def _read(self, index: int) -> Iterator[Image.Image]:
        """Opens an image; an error names it, also if the transform raises it."""
        row = int(self._images[index])
        with named(self.reader.filename(row, absolute=True)):
            stream, _ = self.reader[row]
            with stream:
                yield open_image(stream)

    def _where_labels_are_missing(self) -> str:
        example = self.reader.filename(int(np.argmin(self.reader.targets)))
        count = int((self.reader.targets < 0).sum())
        return f'{count} of its {len(self.reader)} images have no class, such as {example}'

    def _open_store(self, path: Path) -> LabelStore:
        if not path.exists():
            raise UserError(
                f'No label store at {path}: make it with '
                f'`tokenlabel annotate {self.root} {path} --annotator dm_nfnet_f6`, '
                'or train with image labels (targets of type ImageLabels, label_store=None).'
            )
        return LabelStore(path)

    def _join(self, store: LabelStore) -> np.ndarray:
        """Row in the store of each image; leaves out images that the annotator skipped."""
        keys = image_keys(self.reader)
        rows = store.indices(keys)
        lacking = np.flatnonzero(rows < 0)
        skipped = set(store.meta['skipped'])
        missing = [keys[row] for row in lacking if keys[row] not in skipped]
        if missing:
            raise UserError(
                f'Label store {store.path} has no labels for {len(missing)} of the {len(keys)} images in {self.root} '
                f'(the first: {", ".join(missing[:3])}): write a new store of the folder with `tokenlabel annotate`.'
            )
        self.num_skipped = len(lacking)
        self._images = np.flatnonzero(rows >= 0)
        if not len(self._images):
            raise UserError(f'Label store {store.path} has skipped every image of {self.root}: annotate them again.')
        used = np.zeros(len(store), dtype=bool)
        used[rows[self._images]] = True
        used[store.keys.rows(store.meta['skipped'])] = True
        absent = np.flatnonzero(~used)
        if len(absent):
            self.num_absent, self.first_absent = len(absent), store.keys[int(absent[0])]
        return rows[self._images]

    def _share_classes(self, store: LabelStore) -> None:
        """Brings labels and maps to the same classes: the image classes with a class map, else the annotator's."""
        names, count = store.class_names, store.num_classes
        if self.class_map is not None:
            image_classes = self.class_names or self.num_classes or None
            self._table = read_class_map(self.class_map, names or count, image_classes)
            count = self.num_classes or int(self._table.max()) + 1
            self.numbering = self.numbering._replace(num_classes=count)
            return
        same_count = names and len(names) == len(self.class_names)
        if same_count and set(names) != set(self.class_names) and class_numbers(self.class_names) is None:
            differing = next(pair for pair in zip(names, self.class_names, strict=True) if pair[0] != pair[1])
            raise UserError(
                f'Label store {store.path} numbers its classes differently from {self.root} '
                f'(`{differing[0]}` where the folder has `{differing[1]}`): annotate this folder itself, or say '
                'which class is which with class_map.'
            )
        self.renumber(self.numbered_as(names, count, f'the label store {store.path}'))


def _count_from_one(names: Sequence[str]) -> bool:
    return sorted(name.lstrip('0') for name in names) == sorted(str(number + 1) for number in range(len(names)))


@contextmanager
def random_state_of(seed: int, epoch: int, index: int) -> Iterator[None]:
    """Seeds the global `random`, NumPy and torch CPU generators for one sample and restores them afterwards."""
    saved = random.getstate(), np.random.get_bit_generator(), torch.get_rng_state()
    words = np.random.SeedSequence([seed, epoch, index]).generate_state(3)
    random.seed(int(words[0]))
    # swap NumPy's bit generator: restoring its state takes ten times as long
    spare = _spare_generators.pop() if _spare_generators else np.random.MT19937()
    np.random.set_bit_generator(spare)
    np.random.seed(words[1])
    torch.default_generator.manual_seed(int(words[2]))
    try:
        yield
    finally:
        random.setstate(saved[0])
        np.random.set_bit_generator(saved[1])
        _spare_generators.append(spare)
        torch.set_rng_state(saved[2])


_spare_generators: list[np.random.MT19937] = []
