"""Writes one shard of a label store, claimed by a file lock; a crash never leaves a partial batch counted as done."""

import fcntl
import io
import math
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.util import register_after_fork
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tokenlabel.errors import UserError
from tokenlabel.files.reading import explained, open_regular
from tokenlabel.files.writing import sync_folder
from tokenlabel.labels.store.files import ARRAYS, RESTORE, check_arrays, file_name, layout, shard_size
from tokenlabel.labels.store.meta import read_meta


class ShardWriter:
    """The files of a shard that this process has claimed with `claim_shard`.

    Attributes:
        number: number of the shard.
        done: number of its batches on disk.
        locked: whether a lock keeps other processes from claiming it; False on a file system without locks.
    """

    def __init__(self, folder: Path, meta: dict, number: int, progress: int, locked: bool) -> None:
        self.folder, self.meta, self.number, self.locked = folder, meta, number, locked
        self.done = _batches_in(folder, meta, number, os.fstat(progress))
        self._progress = progress
        self._open_files = ExitStack()
        self._open_files.callback(os.close, progress)
        # A loader's worker may outlive this process and must not keep the lock.
        register_after_fork(self, ShardWriter.close)
        self._arrays: dict[str, tuple[BinaryIO, int, int]] = {}  # name: (file, bytes of its header, bytes of a row)

    def write(self, row: int, batches: Sequence[dict[str, np.ndarray]]) -> None:
        """Writes the next batches, the first at `row`, with one fsync for all of them, and then their progress bytes.

        Raises:
            ValueError: `row` is not the next row.
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
        # At fixed positions, so that without locks, two processes on one shard count no batch twice.
        _write_at(self._progress, memoryview(b'.' * len(batches)), self.done)
        os.fsync(self._progress)
        self.done += len(batches)

    def close(self) -> None:
        """Close the files; others may then claim the shard."""
        self._open_files.close()

    def _open_arrays(self) -> None:
        if self.done:
            check_shard(self.folder, self.meta, self.number)
        arrays = {}
        with ExitStack() as stack:
            for name in ARRAYS:
                dtype, shape = layout(self.meta, name, self.number)
                path, header = self.folder / file_name(name, self.number), _npy_header(dtype, shape)
                stride = dtype.itemsize * math.prod(shape[1:])
                # Do not truncate: without locks, another process may have written to it meanwhile.
                file = stack.enter_context(open(path, 'r+b', buffering=0, opener=_open_own))
                if not self.done:
                    _write_at(file.fileno(), memoryview(header), 0)
                    file.truncate(len(header) + shape[0] * stride)
                arrays[name] = file, len(header), stride
            sync_folder(self.folder)
            self._open_files.push(stack.pop_all())
        self._arrays = arrays


def claim_shard(folder: Path, meta: dict, number: int) -> ShardWriter | None:
    """Claims a shard for writing; None if another process has it, or if the store has been finished meanwhile.

    Raises:
        UserError: its progress file is damaged, or the store has been removed meanwhile.
    """
    path = progress_file(folder, number)
    with ExitStack() as stack:
        progress = _open_own(path, os.O_RDWR)
        stack.callback(os.close, progress)
        locked = _try_lock(progress, fcntl.LOCK_EX)
        if locked is False:
            return None
        stored = read_meta(folder)
        if stored is None:
            raise UserError(f'{folder / "meta.json"} has been removed while the store was being written: start again.')
        if stored['complete']:
            path.unlink(missing_ok=True)
            return None
        shard = ShardWriter(folder, meta, number, progress, bool(locked))
        stack.pop_all()  # the shard now owns the file
    return shard


def is_claimed(folder: Path, number: int) -> bool:
    """Whether a running process has claimed a shard; always False on a file system without locks."""
    try:
        with open_regular(progress_file(folder, number)) as progress:
            return _try_lock(progress.fileno(), fcntl.LOCK_SH) is False
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UserError(f'{progress_file(folder, number)} cannot be read {explained(error)}.') from error


def progress_file(folder: Path, number: int) -> Path:
    """File with one byte for each batch of a shard that is on disk."""
    return folder / f'progress-{number:05d}'


def num_done(folder: Path, meta: dict, number: int) -> int:
    """Number of a shard's batches on disk, in a store being written. Raises `UserError` if the file is damaged."""
    path = progress_file(folder, number)
    try:
        return _batches_in(folder, meta, number, path.lstat())
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise UserError(f'{path} cannot be read {explained(error)}.') from error


def check_shard(folder: Path, meta: dict, number: int) -> None:
    """Raises `UserError` if a file of a shard with progress is missing or has another dtype, shape or length."""
    try:
        check_arrays(folder, meta, [number])
    except UserError as error:
        reason = str(error).removesuffix(f'; {RESTORE}.').removesuffix(f': {RESTORE}.').rstrip('.')
        raise UserError(
            f'{reason}: remove {progress_file(folder, number)} to have the maps of its shard made again, then resume.'
        ) from error


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Holds an exclusive lock on a store's folder; does nothing on a file system without locks."""
    with open(folder / 'lock', 'r+b', buffering=0, opener=_open_own) as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _open_own(path: str | Path, flags: int) -> int:
    """Opens or creates a file of a store that is being written; does not follow links and does not block on pipes."""
    return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)


def _batches_in(folder: Path, meta: dict, number: int, progress: os.stat_result) -> int:
    """Number of batches in a progress file."""
    batches = -(-shard_size(meta, number) // meta['batch_size'])
    regular = stat.S_ISREG(progress.st_mode)
    if not regular or progress.st_size > batches:
        found = f'{progress.st_size} bytes' if regular else 'not a regular file'
        raise UserError(
            f'{progress_file(folder, number)} is damaged ({found}, where at most {batches} bytes belong): remove it to '
            'have the maps of its shard made again, then resume.'
        )
    return progress.st_size


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
