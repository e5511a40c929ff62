"""The files of a label store: layout, reading by memory map, and writing so that no crash tears them."""

import fcntl
import hashlib
import io
import json
import mmap
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tokenlabel.errors import UserError
from tokenlabel.files import sync_folder, write_atomically

FORMAT = 'tokenlabel label store'
VERSION = 1
ARRAYS = ('scores', 'classes', 'sizes')


class ShardWriter:
    """The files of one shard. Its progress file is locked, so that no two processes write the same shard.

    Args:
        folder: the store.
        meta: its `meta.json`.
        number: of the shard.
        row: within the shard where the caller expects to go on.

    Raises:
        UserError: another process is or was at work on the shard, or a file of it is damaged.
    """

    def __init__(self, folder: Path, meta: dict, number: int, row: int) -> None:
        self.number = number
        self.batch_size = meta['batch_size']
        self.files, self.offsets = {}, {}
        with ExitStack() as stack:
            self.progress = stack.enter_context(open(folder / f'progress-{number:05d}', 'ab', buffering=0))
            locked = _try_lock(self.progress)
            self.done = os.fstat(self.progress.fileno()).st_size
            if not locked or self.done * self.batch_size != row or read_meta(folder)['complete']:
                raise UserError(f'Another process is writing shard {number} of {folder}: let it finish, or stop it.')
            for name in ARRAYS:
                dtype, shape = layout(meta, name, number)
                path, header = folder / file_name(name, number), _npy_header(dtype, shape)
                stride = dtype.itemsize * int(np.prod(shape[1:]))
                size = len(header) + shape[0] * stride
                file = stack.enter_context(open(path, 'r+b' if self.done else 'wb', buffering=0))
                if not self.done:
                    file.write(header)
                    file.truncate(size)
                elif os.fstat(file.fileno()).st_size != size:
                    raise UserError(f'{path} is damaged (not {size} bytes long): delete {folder} and start again.')
                self.files[name], self.offsets[name] = file, (len(header), stride)
            sync_folder(folder)
            self.open_files = stack.pop_all()

    def write(self, row: int, arrays: dict[str, np.ndarray]) -> None:
        """Write the next batch, beginning at `row`. The progress byte follows once the data are on disk."""
        if row != self.done * self.batch_size:
            raise ValueError(
                f'Batch at row {row} of shard {self.number}, where row {self.done * self.batch_size} is next.'
            )
        for name, array in arrays.items():
            begin, stride = self.offsets[name]
            data, position = memoryview(array).cast('B'), begin + row * stride
            while data:
                written = os.pwrite(self.files[name].fileno(), data, position)
                data, position = data[written:], position + written
        for file in self.files.values():
            os.fsync(file.fileno())
        self.progress.write(b'.')
        os.fsync(self.progress.fileno())
        self.done += 1

    def close(self) -> None:
        self.open_files.close()


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


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full or failing disk into a `UserError`."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f'Cannot write to {path} ({error.strerror}): make room or choose another folder, then run again to resume.'
        ) from error


def _try_lock(file: BinaryIO) -> bool:
    """Whether this process may write; yes on file systems without locks, where ranks divide the shards anyway."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _npy_header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    description = {'descr': np.lib.format.dtype_to_descr(dtype), 'fortran_order': False, 'shape': shape}
    np.lib.format.write_array_header_1_0(buffer, description)
    return buffer.getvalue()
