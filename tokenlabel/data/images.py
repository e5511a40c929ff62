"""Images in a class folder layout, joined to the score maps of a label store."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from timm.data.readers import create_reader
from torch import Tensor
from torch.utils.data import Dataset

from tokenlabel.errors import UserError
from tokenlabel.labels.store import LabelStore, image_keys
from tokenlabel.transforms.view import View


class LabeledImages(Dataset):
    """Images with their class, and with their score maps where there is a label store.

    A sample is a dict: `image` uint8 [3, H, W]; `label` int; with a store also `view` float32 [2, 3] (model input ->
    source image), `scores` float16 [k, S, S], `classes` int64 [k, S, S] and `map_view` float32 [2, 3] (map -> source
    image). Score maps are passed on as stored: they are looked up once per batch, on the training device.

    Args:
        root: folder of class folders (`root/class/image.jpg`), as ImageNet's `train` and `val`.
        transform: PIL RGB image -> (uint8 [3, H, W], View); see `tokenlabel.transforms.image`.
        label_store: folder written by `tools/annotate.py` for `root`; None to train with image labels.
        seed: together with epoch and index it decides every random choice of a sample.

    Raises:
        UserError: the folder is missing or empty, the store is missing, lacks labels for some images or names other
            classes; on reading, an image that cannot be decoded.
    """

    def __init__(
        self,
        root: str | Path,
        transform: Callable[[Image.Image], tuple[Tensor, View]],
        label_store: str | Path | None = None,
        seed: int = 0,
    ) -> None:
        self.root = Path(root)
        self.transform = transform
        self.seed = seed
        self.reader = open_folder(self.root)
        self.class_names = sorted(self.reader.class_to_idx, key=self.reader.class_to_idx.get)
        self.metainfo = {'classes': tuple(self.class_names)}
        self.labels: LabelStore | None = None
        if label_store is not None:
            self.labels = self._open_store(Path(label_store))
            self._rows = self._join(self.labels)

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, which: int | tuple[int, int]) -> dict:
        """Sample `index`, or `(epoch, index)`: augmented anew in each epoch."""
        epoch, index = which if isinstance(which, tuple) else (0, which)
        image, label = self._read(index)
        with random_state_of(self.seed, epoch, index):
            pixels, view = self.transform(image)
        sample = {'image': pixels, 'label': label}
        if self.labels is not None:
            label_map = self.labels[int(self._rows[index])]
            sample |= {
                'view': view.tensor(),
                'scores': torch.from_numpy(np.array(label_map.scores)),
                'classes': torch.from_numpy(np.asarray(label_map.classes).astype(np.int64)),
                'map_view': label_map.view.tensor(),
            }
        return sample

    def key(self, index: int) -> str:
        """Path of an image below the root, with forward slashes: its name in a label store."""
        return Path(self.reader.filename(index)).as_posix()

    def _read(self, index: int) -> tuple[Image.Image, int]:
        stream, label = self.reader[index]
        try:
            with stream:
                return Image.open(stream).convert('RGB'), label
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            path = self.root / self.key(index)
            raise UserError(f'{path} cannot be read as an image ({error}); replace or remove it.') from error

    def _open_store(self, path: Path) -> LabelStore:
        if not path.exists():
            raise UserError(
                f'No label store at {path}: make it with '
                f'`python tools/annotate.py {self.root} {path} --annotator dm_nfnet_f6`, '
                'or train with image labels (targets of type ImageLabels, label_store=None).'
            )
        return LabelStore(path)

    def _join(self, store: LabelStore) -> np.ndarray:
        """Row of the store for each image."""
        names = list(store.class_names or [])
        if names and names != self.class_names and len(names) == len(self.class_names):
            differing = next(pair for pair in zip(names, self.class_names, strict=True) if pair[0] != pair[1])
            raise UserError(
                f'Label store {store.path} numbers its classes differently from {self.root} '
                f'(`{differing[0]}` where the folder has `{differing[1]}`): annotate this folder itself.'
            )
        keys = image_keys(self.reader)
        rows = store.indices(keys)
        missing = np.flatnonzero(rows < 0)
        if len(missing):
            examples = ', '.join(keys[i] for i in missing[:3])
            raise UserError(
                f'Label store {store.path} has no labels for {len(missing)} of the {len(keys)} images in {self.root} '
                f'(the first: {examples}): annotate the folder into a new store with tools/annotate.py.'
            )
        return rows


def open_folder(root: Path):
    """timm's reader of a class folder tree, sorted by path.

    Raises:
        UserError: the folder is missing, or holds no image in a class folder.
    """
    if not root.is_dir():
        raise UserError(f'No image folder at {root}: give a folder of class folders, such as imagenet/train.')
    try:
        return create_reader('', str(root))
    except RuntimeError as error:
        raise UserError(f'No images in {root}: images are expected as {root}/CLASS/IMAGE.jpg.') from error


@contextmanager
def random_state_of(seed: int, epoch: int, index: int) -> Iterator[None]:
    """Seeds the global `random`, NumPy and torch CPU generators for one sample, and puts them back afterwards."""
    saved = random.getstate(), np.random.get_state(), torch.get_rng_state()
    words = np.random.SeedSequence([seed, epoch, index]).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(words[1])
    torch.default_generator.manual_seed(int(words[2]))
    try:
        yield
    finally:
        random.setstate(saved[0])
        np.random.set_state(saved[1])
        torch.set_rng_state(saved[2])
