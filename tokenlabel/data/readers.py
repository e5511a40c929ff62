"""Images of any layout, by number: folders, tars, WebDataset shards, Hugging Face datasets."""

import io
import os
import re
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tokenlabel.data.image_reader import ImageReader, folder_classes, label_classes
from tokenlabel.data.tar.images import find_shards, open_tars, tars_in
from tokenlabel.errors import UserError
from tokenlabel.files.folder_walk import IMAGE_SUFFIXES, Found, find_files, natural_key, report, report_skipped
from tokenlabel.files.reading import open_regular, relative_name


def open_images(source: str | Path, split: str = 'train') -> ImageReader:
    """Open images in any of these layouts:

    - a folder tree (see `tokenlabel.files.folder_walk`); an image's class is its folder (`root/class/image.jpg`),
      numbered as in timm; if the root itself holds images, there are no classes;
    - a tar of such a tree, or a folder of tars, one per class; keys are those of the unpacked tree;
    - WebDataset shards: a folder, a tar or a pattern (`wds/shards-{000..031}.tar`) of tars that hold `key.jpg` beside
      `key.cls` or `key.json` (its `label`). They are detected; `wds/PATH` forces this layout. Keys are `shard/key.jpg`;
    - `hfds/NAME`: a dataset of the Hugging Face hub, or a local one by its path. Keys are the paths in the dataset, or
      `split/000012345` if these are not unique.

    Args:
        source: path, or `wds/...` or `hfds/...`. Give the latter as str, because Path shortens `hfds//data/flowers`.
        split: split of a Hugging Face dataset, or of shards that state their split in `_info.json` or in their names.
            Ignored for a folder.

    Raises:
        UserError: the source is missing or has no images, a tar cannot be read, a name occurs twice, or the layout can
            only be streamed.
    """
    source = str(source)
    prefix, _, rest = source.partition('/')
    root = Path(source)
    if prefix == 'hfds':
        return HubImages(rest, split)
    if prefix == 'wds':
        return open_tars(source, find_shards(rest), split, shards=True)
    if prefix in ('hfids', 'tfds'):
        raise UserError(
            f'{source} can only be streamed, but images are read in any order here: give the dataset as hfds/{rest}, '
            'or write it out as a folder of class folders or as WebDataset shards.'
        )
    if re.search(r'\.(tar\.\w+|tgz|tbz2?|txz)$', source, re.IGNORECASE):
        raise UserError(
            f'{source} is compressed, so that images cannot be read in any order: unpack it to a plain .tar.'
        )
    if os.path.isdir(root):
        found = find_files(source, IMAGE_SUFFIXES)
        # Folders take precedence: tars may remain beside their unpacked contents.
        if found.names:
            return FolderImages(source, found)
        if tars := tars_in(root):
            return open_tars(source, tars, split)
        passed = f'; skipped {found.skipped}' if found.skipped else ''
        raise UserError(f'No images in {source}: images are expected as {source}/CLASS/IMAGE.jpg{passed}.')
    if root.suffix.lower() == '.tar':
        return open_tars(source, [root], split)
    raise UserError(
        f'No image folder at {source}: give a folder of class folders such as imagenet/train, a .tar, '
        'wds/SHARDS or hfds/DATASET.'
    )


class FolderImages(ImageReader):
    """A folder tree; an image's class is its folder."""

    def __init__(self, root: str, found: Found) -> None:
        parents = [name.rpartition('/')[0] for name in found.names]
        classes = folder_classes([folder.rpartition('/')[2] for folder in parents])
        super().__init__(root, found.names, *classes)
        report_skipped(root, len(self), found.skipped)
        _report_folders(root, sorted(set(parents), key=natural_key), found)

    def _open(self, index: int) -> BinaryIO:
        return open_regular(Path(self.source, self.keys[index]))


def _report_folders(root: str, parents: list[str], found: Found) -> None:
    """Reports likely mistakes in a tree of class folders, because they change the numbering of the classes."""
    if parents != [''] and parents[0] == '':
        first = next(name for name in found.names if '/' not in name)
        report(f'{root}: images such as {first} lie beside the class folders, so that no image has a class.')
    if parents == ['']:
        return
    if empty := found.empty_folders():
        report(f'{root}: {len(empty)} folders hold no image, so that they are no classes, such as {empty[0]}.')
    by_class: dict[str, list[str]] = {}
    for folder in parents:
        by_class.setdefault(folder.rpartition('/')[2], []).append(folder)
    if shared := [folders for folders in by_class.values() if len(folders) > 1]:
        report(
            f'{root}: a class is the name of the last folder, so that {len(shared)} classes lie in several, such as '
            f'{" and ".join(shared[0][:2])}.'
        )


class HubImages(ImageReader):
    """A dataset of the Hugging Face hub or of a local folder. Reads the first image column, and labels from the column
    `label` or else from the first column of classes.

    timm's reader expects fixed column names, and decodes a row to get its file name.

    Raises:
        UserError: the package `datasets`, the dataset or its split is missing, or the split has no images.
    """

    def __init__(self, name: str, split: str) -> None:
        try:
            import datasets
        except ImportError as error:
            raise UserError(f'hfds/{name} needs the package datasets: pip install "datasets>=2.19".') from error
        try:
            data = datasets.load_dataset(name, split=split)
        except Exception as error:
            # the hub's clients can raise many exceptions
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(f'hfds/{name} has no split {split} that can be read ({reason}).') from error
        kinds = data.features
        image = next((column for column, kind in kinds.items() if isinstance(kind, datasets.Image)), None)
        if image is None or not len(data):
            raise UserError(f'hfds/{name} has no images in its split {split}, only {", ".join(kinds)}.')
        classes = [column for column, kind in kinds.items() if isinstance(kind, datasets.ClassLabel)]
        label = 'label' if 'label' in kinds else next(iter(classes), None)
        targets, class_to_idx = np.full(len(data), -1, dtype=np.int64), {}
        if isinstance(kinds.get(label), datasets.Value | datasets.ClassLabel):
            values = data.data.column(label).to_pylist()
            targets, class_to_idx = label_classes([None if value is None else str(value) for value in values])
        if label in classes:
            class_to_idx = {name: number for number, name in enumerate(kinds[label].names)}
        self._data = data.select_columns([image]).cast_column(image, datasets.Image(decode=False))
        self._image = image
        keys = _path_keys(self._data.data.column(image), name)
        super().__init__(
            f'hfds/{name}', keys or [f'{split}/{row:09d}' for row in range(len(data))], targets, class_to_idx
        )

    def _open(self, index: int) -> BinaryIO:
        image = self._data[index][self._image]
        return io.BytesIO(image['bytes']) if image['bytes'] else open_regular(image['path'])


def _path_keys(images, name: str) -> list[str] | None:
    """Paths in an image column, below the dataset's folder; None if some are missing or not unique."""
    paths = images.flatten()[images.type.get_field_index('path')].to_pylist()
    if None in paths or len(set(paths)) < len(paths):
        return None
    if all(os.path.isabs(path) for path in paths):
        root = Path(name).resolve()
        if not all(Path(path).is_relative_to(root) for path in paths):
            root = Path(os.path.commonpath([os.path.dirname(path) for path in paths]))
        paths = [os.path.relpath(path, root) for path in paths]
    return [relative_name(path, name) for path in paths]
