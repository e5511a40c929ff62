"""The files of a label store: what they hold, and reading them by memory map."""

import hashlib
import json
import mmap
from pathlib import Path
from typing import Any

import numpy as np

from tokenlabel.errors import UserError
from tokenlabel.files import write_atomically

FORMAT = 'tokenlabel label store'
VERSION = 1
ARRAYS = ('scores', 'classes', 'sizes')
RESUME = 'make room or choose another folder, then run again to resume'  # where the disk fails


def read_meta(path: str | Path) -> dict[str, Any] | None:
    """Contents of a store's `meta.json`, finished or not; None where there is none.

    Raises:
        UserError: it is damaged, of something else, or of a newer version.
    """
    file = Path(path) / 'meta.json'
    try:
        meta = json.loads(file.read_text(encoding='utf-8'))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise UserError(f'{file} cannot be read ({error}).') from error
    if not isinstance(meta, dict) or meta.get('format') != FORMAT:
        raise UserError(f'{file} does not belong to a label store.')
    if meta['version'] > VERSION:
        raise UserError(f'{file} has format version {meta["version"]}, newer than {VERSION}: update tokenlabel.')
    return meta


def write_meta(path: Path, meta: dict[str, Any]) -> None:
    """Replace a store's `meta.json`."""
    write_atomically(path / 'meta.json', (json.dumps(meta, indent=2, ensure_ascii=True) + '\n').encode())


def num_shards(meta: dict) -> int:
    """Number of shards of a store."""
    return -(-meta['num_images'] // meta['images_per_shard'])


def shard_size(meta: dict, shard: int) -> int:
    """Images in a shard: all are equally long but the last."""
    return min(meta['images_per_shard'], meta['num_images'] - shard * meta['images_per_shard'])


def layout(meta: dict, name: str, shard: int) -> tuple[np.dtype, tuple[int, ...]]:
    """Type and shape of one array of a shard; little-endian on every machine."""
    size = shard_size(meta, shard)
    if name == 'sizes':
        return np.dtype('<u4'), (size, 2)
    shape = size, meta['k'], *meta['grid']
    if name == 'scores':
        return np.dtype('<f2'), shape
    return np.dtype('<u2' if meta['num_classes'] <= 2**16 else '<u4'), shape


def file_name(name: str, shard: int) -> str:
    """File of one array of a shard."""
    return f'{name}-{shard:05d}.npy'


def map_array(path: Path, scattered: bool = False) -> np.ndarray:
    """A `.npy` file as a read-only array over its memory map.

    Args:
        path: the file.
        scattered: rows will be read in random order, so that reading ahead of them is wasted.

    Raises:
        UserError: the file is missing, too short or no `.npy` file.
    """
    try:
        array = np.load(path, mmap_mode='r', allow_pickle=False)
        if scattered:
            array.base.madvise(mmap.MADV_RANDOM)
        # A plain array over the memory map: indexing an np.memmap is several times slower.
        return array.view(np.ndarray)
    except FileNotFoundError as error:
        raise UserError(f'{path} is missing: the label store is damaged.') from error
    except (OSError, ValueError) as error:
        raise UserError(f'{path} is damaged ({error}).') from error


def file_digest(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
