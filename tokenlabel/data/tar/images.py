"""Images in tars: class folders, a tar per class, WebDataset shards."""

import glob
import io
import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tokenlabel.data.image_reader import ImageReader, folder_classes, label_classes
from tokenlabel.data.tar.cache import cached_index
from tokenlabel.data.tar.index import TarIndex, sample_key
from tokenlabel.errors import UserError
from tokenlabel.files.folder_walk import IMAGE_SUFFIXES, Skipped, is_hidden, natural_key, report, report_skipped
from tokenlabel.files.reading import explained, read_json, relative_name
from tokenlabel.files.tar_members import TarFiles

_MAX_SHARDS, _MAX_BRACES = 10**6, 100  # in a pattern
# last words of companion images such as `key.mask.png`, even if their main image is missing
_COMPANIONS = re.compile(
    r'(masks?|seg|segmentation|semantic|instances?|panoptic|labels?|gt|targets?|annotations?|depth|normals?|edges?|flow'
    r'|alpha|trimap|matte)[-_]?\d*'
)
_SPLIT_WORDS = {
    'train': {'train', 'training'},
    'validation': {'val', 'valid', 'validation', 'eval'},
    'test': {'test', 'testing'},
}


def open_tars(source: str, tars: Sequence[Path], split: str, shards: bool = False) -> 'TarImages':
    """Open tars: as WebDataset shards if the first holds labels beside its images, else as class folders.

    Args:
        source: path or pattern given by the user.
        tars: files, at least one.
        split: split of shards to read.
        shards: treat them as WebDataset shards in any case.

    Raises:
        UserError: as `open_images`.
    """
    indices = {tars[0]: cached_index(tars[0], IMAGE_SUFFIXES)}
    shards = shards or bool(indices[tars[0]].labels)
    if shards and len(tars) > 1:
        tars = _of_split(tars, split)
    rest = [tar for tar in tars if tar not in indices]
    with ThreadPoolExecutor() as pool:
        indices |= zip(rest, pool.map(lambda tar: cached_index(tar, IMAGE_SUFFIXES), rest), strict=True)
    indices = {tar: indices[tar] for tar in tars}
    skipped = Skipped()
    for tar, index in indices.items():
        skipped.update(index.skipped, tar.name)
    images = _shard_images(source, indices, skipped) if shards else _tree_images(source, indices)
    if not images:
        passed = f' (skipped {skipped})' if skipped else ''
        raise UserError(f'No images in {source}: its tars hold no {", ".join(IMAGE_SUFFIXES)} files{passed}.')
    report_skipped(source, len(images), skipped)
    return images


class TarImages(ImageReader):
    """Images in tars, read by their offset.

    Args:
        source: path or pattern given by the user.
        tars: files.
        images: (key, number of the tar, offset, size) of each image; offset and size in bytes.
        targets: class of each image, -1 for none.
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
    """Images of class folders in tars; a tar is the class of the images in its root, unless it is `source` itself."""
    images = []
    for number, (tar, index) in enumerate(indices.items()):
        folder = '' if tar == Path(source) else f'{tar.stem}/'
        for name, *place in zip(index.names, index.offsets, index.sizes, strict=True):
            images.append((folder + name, number, *place))
    folders = [posixpath.dirname(image[0]) for image in images]
    targets, class_to_idx = folder_classes([posixpath.basename(folder) for folder in folders])
    return TarImages(source, list(indices), images, targets, class_to_idx)


def _shard_images(source: str, indices: dict[Path, TarIndex], skipped: Skipped) -> TarImages:
    """One image of each sample, with its label; other images are added to `skipped`."""
    images, labels = [], []
    for number, (tar, index) in enumerate(indices.items()):
        keys = _sample_keys(index.names)
        best: dict[str, list[int]] = {}
        for row, (name, key) in enumerate(zip(index.names, keys, strict=True)):
            if key is None:
                skipped.add('that accompany another image', f'{tar.name}/{name}')
            else:
                best.setdefault(key, []).append(row)
        first_dots = Counter(sample_key(index.names[rows[0]]) for rows in best.values())
        for key, rows in best.items():
            preferred = min(_preference(index.names[row]) for row in rows)
            for row in rows:
                name = index.names[row]
                if _preference(name) > preferred:
                    skipped.add('further images of a sample', f'{tar.name}/{name}')
                    continue
                images.append((f'{tar.stem}/{name}', number, index.offsets[row], index.sizes[row]))
                short = sample_key(name)
                labels.append(index.labels.get(key if first_dots[short] > 1 or key in index.labels else short))
    return TarImages(source, list(indices), images, *label_classes(labels))


def _sample_keys(names: Sequence[str]) -> list[str | None]:
    """The key of each image's sample; None for images that accompany another one, such as `key.mask.png`.

    WebDataset ends a key at the first dot of a file name, so `clip_2.0_001.jpg` would belong to the sample `clip_2`.
    Here a key ends at the last dot. An image accompanies another one if its last word is a known one such as `mask`, or
    if the word after the other image's name begins with a letter.
    """
    stems = [posixpath.splitext(name)[0] for name in names]
    known = set(stems)

    def accompanies(stem: str) -> bool:
        folder, slash, file = stem.rpartition('/')
        parts = file.split('.')
        shorter = (('.'.join(parts[:count]), parts[count]) for count in range(1, len(parts)))
        of_another = any(folder + slash + begin in known and next_part[:1].isalpha() for begin, next_part in shorter)
        return len(parts) > 1 and (of_another or _COMPANIONS.fullmatch(parts[-1].lower()) is not None)

    return [None if accompanies(stem) else stem for stem in stems]


def _preference(name: str) -> int:
    return IMAGE_SUFFIXES.index(posixpath.splitext(name)[1].lower())


def tars_in(folder: Path) -> list[Path]:
    """The tars directly in a folder, without hidden ones.

    Raises:
        UserError: the folder cannot be read.
    """
    try:
        names = [entry.name for entry in os.scandir(folder)]
    except OSError as error:
        raise UserError(f'The folder {folder} cannot be read {explained(error)}.') from error
    return [folder / name for name in sorted(names, key=natural_key) if _is_tar(name)]


def _is_tar(name: str) -> bool:
    return name.lower().endswith('.tar') and not is_hidden(name)


def find_shards(path: str) -> list[Path]:
    """Tars at a path: a file, a folder of them, or a pattern with braces and wildcards.

    Raises:
        UserError: there are none, or a tar of the pattern is missing.
    """
    if os.path.isdir(path):
        shards = tars_in(Path(path))
    else:
        shards = {}
        if path.count('{') > _MAX_BRACES:
            raise UserError(f'wds/{path} has more than {_MAX_BRACES} braces: give fewer.')
        # lazily: a pattern can expand to any number of names, and the first missing file raises
        for count, name in enumerate(_expand_braces(path)):
            if count == _MAX_SHARDS:
                raise UserError(f'wds/{path} names more than {_MAX_SHARDS} shards: give fewer.')
            files = [file for file in sorted(glob.glob(name)) if not is_hidden(os.path.basename(file))] or [name]
            shards |= {Path(file): None for file in files}
            _check_is_file(Path(files[0]))
    for shard in shards:
        _check_is_file(shard)
    if not shards:
        _check_is_file(Path(path, '*.tar'))
    return list(shards)


def _check_is_file(shard: Path) -> None:
    if not os.path.isfile(shard):
        raise UserError(f'No WebDataset shards at {shard}: give wds/ and a local folder of tars, a .tar or a pattern.')


def _expand_braces(pattern: str) -> Iterator[str]:
    """Expands `{000..031}` and `{a,b}` lazily, as a shell does."""
    found = re.search(r'\{([^{}]*)\}', pattern)
    if found is None:
        yield pattern
        return
    items: Iterable[str] = found[1].split(',')
    if counted := re.fullmatch(r'(\d{1,18})\.\.(\d{1,18})', found[1]):
        first, last = counted.groups()
        step = 1 if int(first) <= int(last) else -1
        items = (f'{number:0{len(first)}d}' for number in range(int(first), int(last) + step, step))
    for item in items:
        yield from _expand_braces(pattern[: found.start()] + item + pattern[found.end() :])


def _of_split(shards: Sequence[Path], split: str) -> list[Path]:
    """The shards of a split, by `_info.json` beside them or else by a word in their names; all if neither states it."""
    named = _splits_of_info(shards[0].parent) or _splits_of_names(shards)
    if not named:
        return list(shards)
    synonym = next((name for name, words in _SPLIT_WORDS.items() if split in words), split)
    files = named.get(split) or named.get(synonym)
    if not files:
        raise UserError(f'{shards[0].parent} has no shards of a split {split}, only of {", ".join(sorted(named))}.')
    missing = sorted(name for name in files if not (shards[0].parent / name).is_file())
    if missing:
        count = f'{len(missing)} of {len(files)}'
        report(f'{shards[0].parent}: {count} shards of {split} are missing, such as {missing[0]}.')
    return [shard for shard in shards if shard.name in files]


def _splits_of_info(folder: Path) -> dict[str, set[str]] | None:
    """Split -> file names, from the info file that timm writes beside shards."""
    file = next((file for file in (folder / '_info.json', folder / 'info.json') if file.is_file()), None)
    if file is None:
        return None
    info = read_json(file)
    splits = info.get('splits') if isinstance(info, dict) else None
    lists = {}
    for name, of_split in splits.items() if isinstance(splits, dict) else ():
        names = of_split.get('filenames') if isinstance(of_split, dict) else None
        if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
            raise UserError(f'{file} does not list the filenames of its split {name}: repair or remove it.')
        lists[name] = {relative_name(one, file) for one in names}
    if not isinstance(splits, dict):
        raise UserError(f'{file} does not list the filenames of its splits: repair or remove it.')
    return lists


def _splits_of_names(shards: Sequence[Path]) -> dict[str, set[str]]:
    splits = {name: set() for name in _SPLIT_WORDS}
    for shard in shards:
        words = set(re.split(r'[-_.]', shard.stem.lower()))
        for name, synonyms in _SPLIT_WORDS.items():
            if words & synonyms:
                splits[name].add(shard.name)
    return {name: files for name, files in splits.items() if files}
