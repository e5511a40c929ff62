"""Writing one shard of a label store: claimed by a lock, and so that no crash tears it."""

import fcntl
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.util import register_after_fork
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tokenlabel.errors import UserError
from tokenlabel.files import sync_folder
from tokenlabel.labels.store.files import ARRAYS, file_name, layout, read_meta


class ShardWriter:
    """The files of one shard that this process has claimed; made by `claim_shard`.

    Attributes:
        number: of the shard.
        done: batches of it that are on disk.
        locked: no other process can claim it; False on a file system without locks.
    """

    def __init__(self, folder: Path, meta: dict, number: int, progress: int, locked: bool) -> None:
        self.folder, self.meta, self.number, self.locked = folder, meta, number, locked
        self.done = os.fstat(progress).st_size
        self._progress = progress
        self._open_files = ExitStack()
        self._open_files.callback(os.close, progress)
        # A loader's worker that outlives this process for a while must not hold the lock for it.
        register_after_fork(self, ShardWriter.close)
        self._arrays: dict[str, tuple[BinaryIO, int, int]] = {}  # name: (file, bytes of its header, bytes of a row)

    def write(self, row: int, batches: Sequence[dict[str, np.ndarray]]) -> None:
        """Write the next batches, the first beginning at `row`, and wait for the disk once for all of them.

        Their progress bytes follow once the data are on disk.

        Raises:
            ValueError: another row is next.
            UserError: a file of the shard is damaged.
        """
        expected = self.done * self.meta['batch_size']
        if row != expected:
            raise ValueError(f'Batch at row {row} of shard {self.number}, where row {expected} is next.')
        if not self._arrays:
            self._open_arrays()
        for arrays in batches:
            for name, array in arrays.items():
                file, begin, stride = self._arrays[name]
                _write_at(file.fileno(), memoryview(array).cast('B'), begin + row * stride)
            row += len(array)
        for file, _, _ in self._arrays.values():
            os.fsync(file.fileno())
        # At a fixed place, so that two processes at work on one shard where there are no locks count no batch twice.
        _write_at(self._progress, memoryview(b'.' * len(batches)), self.done)
        os.fsync(self._progress)
        self.done += len(batches)

    def close(self) -> None:
        """Close the files; others may then claim the shard."""
        self._open_files.close()

    def _open_arrays(self) -> None:
        arrays = {}
        with ExitStack() as stack:
            for name in ARRAYS:
                dtype, shape = layout(self.meta, name, self.number)
                path, header = self.folder / file_name(name, self.number), _npy_header(dtype, shape)
                stride = dtype.itemsize * int(np.prod(shape[1:]))
                size = len(header) + shape[0] * stride
                if not self.done:
                    # Not emptied: where there are no locks, another process may have written to it meanwhile.
                    path.touch()
                file = stack.enter_context(open(path, 'r+b', buffering=0))
                if not self.done:
                    _write_at(file.fileno(), memoryview(header), 0)
                    file.truncate(size)
                elif os.fstat(file.fileno()).st_size != size:
                    raise UserError(f'{path} is damaged (not {size} bytes long): delete {self.folder} and start again.')
                arrays[name] = file, len(header), stride
            sync_folder(self.folder)
            self._open_files.push(stack.pop_all())
        self._arrays = arrays


def claim_shard(folder: Path, meta: dict, number: int) -> ShardWriter | None:
    """A shard to write to; None where another process has it, or where the store has been finished meanwhile."""
    path = progress_file(folder, number)
    progress = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    locked = _try_lock(progress, fcntl.LOCK_EX)
    if locked is False:
        os.close(progress)
        return None
    if read_meta(folder)['complete']:
        os.close(progress)
        path.unlink(missing_ok=True)
        return None
    return ShardWriter(folder, meta, number, progress, bool(locked))


def is_claimed(folder: Path, number: int) -> bool:
    """Whether a living process has claimed a shard; False on a file system without locks, where nobody knows."""
    try:
        with open(progress_file(folder, number), 'rb') as progress:
            return _try_lock(progress.fileno(), fcntl.LOCK_SH) is False
    except FileNotFoundError:
        return False


def progress_file(folder: Path, number: int) -> Path:
    """File with one byte for each batch of a shard that is on disk."""
    return folder / f'progress-{number:05d}'


def num_done(folder: Path, number: int) -> int:
    """Batches of a shard that are on disk, while the store is being written."""
    try:
        return progress_file(folder, number).stat().st_size
    except FileNotFoundError:
        return 0


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Keeps other processes that ask for the same folder waiting; no lock on a file system without locks."""
    with open(folder / 'lock', 'ab') as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _try_lock(file: int, kind: int) -> bool | None:
    """Whether this process holds a lock on the file now; None on file systems without locks."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _write_at(file: int, data: memoryview, position: int) -> None:
    while data:
        written = os.pwrite(file, data, position)
        data, position = data[written:], position + written


def _npy_header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    description = {'descr': np.lib.format.dtype_to_descr(dtype), 'fortran_order': False, 'shape': shape}
    np.lib.format.write_array_header_1_0(buffer, description)
    return buffer.getvalue()
