"""Images in tars: class folders, a tar per class, WebDataset shards."""

import glob
import io
import json
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
from timm.utils.misc import natural_key

from tokenlabel.data.image_reader import IMAGE_SUFFIXES, ImageReader, folder_classes, label_classes
from tokenlabel.data.tar_index import TarFiles, TarIndex, index_tar, sample_key
from tokenlabel.errors import UserError

_SPLIT_WORDS = {
    'train': {'train', 'training'},
    'validation': {'val', 'valid', 'validation', 'eval'},
    'test': {'test', 'testing'},
}


def open_tars(source: str, tars: Sequence[Path], split: str, shards: bool = False) -> 'TarImages':
    """Open tars: as WebDataset shards if the first holds labels beside its images, else as class folders.

    Args:
        source: what was asked for.
        tars: files, at least one.
        split: of shards; those of other splits are left out.
        shards: take them for WebDataset shards in any case.

    Raises:
        UserError: as `open_images`.
    """
    indices = {tars[0]: index_tar(tars[0], IMAGE_SUFFIXES)}
    shards = shards or bool(indices[tars[0]].labels)
    if shards and len(tars) > 1:
        tars = _of_split(tars, split)
    rest = [tar for tar in tars if tar not in indices]
    with ThreadPoolExecutor() as pool:
        indices |= zip(rest, pool.map(lambda tar: index_tar(tar, IMAGE_SUFFIXES), rest), strict=True)
    indices = {tar: indices[tar] for tar in tars}
    if not any(index.names for index in indices.values()):
        raise UserError(f'No images in {source}: its tars hold no {", ".join(IMAGE_SUFFIXES)} files.')
    return _shard_images(source, indices) if shards else _tree_images(source, indices)


class TarImages(ImageReader):
    """Images in tars, read by their position.

    Args:
        source: what was asked for.
        tars: files.
        images: (key, number of the tar, offset, size) of each image.
        targets: their classes.
        class_to_idx: class name -> class.
    """

    def __init__(
        self,
        source: str,
        tars: Sequence[Path],
        images: Sequence[tuple[str, int, int, int]],
        targets: np.ndarray,
        class_to_idx: dict[str, int],
    ) -> None:
        order = sorted(range(len(images)), key=lambda row: natural_key(images[row][0]))
        self._files = TarFiles(tars)
        self._places = np.array([images[row][1:] for row in order], dtype=np.int64)
        super().__init__(source, [images[row][0] for row in order], targets[order], class_to_idx)

    def _open(self, index: int) -> BinaryIO:
        return io.BytesIO(self._files.read(*self._places[index].tolist()))


def _tree_images(source: str, indices: dict[Path, TarIndex]) -> TarImages:
    """Classes are folders, or tars in whose root images lie; a single tar that was asked for by name is the root."""
    images = []
    for number, (tar, index) in enumerate(indices.items()):
        folder = PurePosixPath('' if tar == Path(source) else tar.stem)
        for name, *place in zip(index.names, index.offsets, index.sizes, strict=True):
            images.append(((folder / name).as_posix(), number, *place))
    targets, class_to_idx = folder_classes([PurePosixPath(image[0]).parent.name for image in images])
    return TarImages(source, list(indices), images, targets, class_to_idx)


def _shard_images(source: str, indices: dict[Path, TarIndex]) -> TarImages:
    """One image of each sample, with its label."""
    images, labels = [], []
    for number, (tar, index) in enumerate(indices.items()):
        for row in _one_image_per_sample(index.names):
            name = index.names[row]
            images.append((f'{tar.stem}/{name}', number, index.offsets[row], index.sizes[row]))
            labels.append(index.labels.get(sample_key(name)))
    return TarImages(source, list(indices), images, *label_classes(labels))


def _one_image_per_sample(names: Sequence[str]) -> list[int]:
    """Rows of the images, the preferred kind where several share a key; `key.mask.png` is no image of the sample."""
    best: dict[str, tuple[int, int]] = {}
    for row, name in enumerate(names):
        key = sample_key(name)
        suffix = name[len(key) :].lower()
        if suffix in IMAGE_SUFFIXES:
            best[key] = min((IMAGE_SUFFIXES.index(suffix), row), best.get(key, (len(IMAGE_SUFFIXES), row)))
    return [row for _, row in best.values()]


def find_shards(path: str) -> list[Path]:
    """Tars at a path: a file, a folder of them, or a pattern with braces and wildcards.

    Raises:
        UserError: there are none, or not all that the pattern names.
    """
    if Path(path).is_dir():
        shards = sorted(Path(path).glob('*.tar'))
    else:
        shards = [Path(file) for name in _expand_braces(path) for file in sorted(glob.glob(name)) or [name]]
    missing = [shard for shard in shards if not shard.is_file()]
    if missing or not shards:
        where = missing[0] if missing else f'{path}/*.tar'
        raise UserError(f'No WebDataset shards at {where}: give wds/ and a local folder of tars, a .tar or a pattern.')
    return shards


def _expand_braces(pattern: str) -> list[str]:
    """`{000..031}` counts, `{a,b}` lists, as in a shell."""
    found = re.search(r'\{([^{}]*)\}', pattern)
    if found is None:
        return [pattern]
    items: Iterable[str] = found[1].split(',')
    if counted := re.fullmatch(r'(\d+)\.\.(\d+)', found[1]):
        first, last = counted.groups()
        items = (f'{number:0{len(first)}d}' for number in range(int(first), int(last) + 1))
    return [name for item in items for name in _expand_braces(pattern[: found.start()] + item + pattern[found.end() :])]


def _of_split(shards: Sequence[Path], split: str) -> list[Path]:
    """The shards of a split: by `_info.json` beside them, else by a word in their names; all, where nothing tells."""
    named = _splits_of_info(shards[0].parent) or _splits_of_names(shards)
    if not named:
        return list(shards)
    synonym = next((name for name, words in _SPLIT_WORDS.items() if split in words), split)
    files = named.get(split) or named.get(synonym)
    if not files:
        raise UserError(f'{shards[0].parent} has no shards of a split {split}, only of {", ".join(sorted(named))}.')
    return [shard for shard in shards if shard.name in files]


def _splits_of_info(folder: Path) -> dict[str, set[str]] | None:
    """Split -> file names, from the file that timm's writers leave beside shards."""
    file = next((file for file in (folder / '_info.json', folder / 'info.json') if file.is_file()), None)
    if file is None:
        return None
    try:
        splits = json.loads(file.read_text(encoding='utf-8'))['splits']
        return {name: set(info['filenames']) for name, info in splits.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f'{file} does not list the filenames of its splits ({error!r}): repair or remove it.'
        ) from error


def _splits_of_names(shards: Sequence[Path]) -> dict[str, set[str]]:
    splits = {name: set() for name in _SPLIT_WORDS}
    for shard in shards:
        words = set(re.split(r'[-_.]', shard.stem.lower()))
        for name, synonyms in _SPLIT_WORDS.items():
            if words & synonyms:
                splits[name].add(shard.name)
    return {name: files for name, files in splits.items() if files}
