"""Atomic writes: a reader sees either the old file or the complete new one."""

import errno
import itertools
import json
import math
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tokenlabel.errors import UserError

_numbers = itertools.count()  # give each thread's temporary file its own name


def write_atomically(path: str | Path, data: bytes | str) -> None:
    """Writes a file atomically, also if several processes write it at once.

    Args:
        path: the file; its folder is created if missing.
        data: contents; text is written as UTF-8.

    Raises:
        UserError: the disk is full, or the file cannot be written.
    """
    with unfinished(path) as temporary, open(temporary, 'wb') as file:
        file.write(data.encode() if isinstance(data, str) else data)


@contextmanager
def unfinished(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path with the same suffix, for a file that the block writes.

    If the block succeeds, the file is renamed to `path`. Otherwise it is removed.

    Args:
        path: final path of the file; its folder is created if missing.

    Raises:
        UserError: the disk is full, or the file cannot be written.
    """
    path = Path(path)
    temporary = temporary_beside(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():  # a device would be replaced
            raise OSError(errno.EINVAL, 'not a regular file', str(path))
        try:
            yield temporary
            with open(temporary, 'rb') as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


@contextmanager
def disk_errors(path: str | Path, remedy: str = 'make room, or choose another place') -> Iterator[None]:
    """Converts disk errors (full, failing, no permission) to `UserError`.

    Args:
        path: file or folder that is being written.
        remedy: what to do, for the message.
    """
    try:
        yield
    except ConnectionError:  # from another process, not from the disk
        raise
    except OSError as error:
        raise UserError(f'Cannot write to {path} ({error.strerror or error}): {remedy}.') from error


def write_json(path: str | Path, data: object) -> None:
    """Writes nested dicts and lists as indented JSON, atomically; NaN and infinities become null.

    Args:
        path: the file; its folder is created if missing.
        data: any data that `json.dumps` accepts.

    Raises:
        UserError: as `write_atomically`.
    """
    write_atomically(path, json.dumps(_finite(data), indent=2, allow_nan=False) + '\n')


def temporary_beside(path: Path) -> Path:
    """A new name for a temporary file beside `path`, with the same suffix; see `is_temporary`."""
    # without the name of `path`, which may already have the maximal length
    return path.with_name(f'.{socket.gethostname()}-{os.getpid()}-{next(_numbers)}.tmp{path.suffix}')


def is_temporary(file: Path) -> bool:
    """Whether a file is a temporary file, left behind by a process that was killed in `unfinished`."""
    return re.fullmatch(r'\..*\.tmp(\.\w+)?', file.name) is not None


def sync_folder(folder: Path) -> None:
    """Flushes a folder to disk, so that renames in it survive a crash."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _finite(data: object) -> object:
    """The same data with None for NaN and infinities."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
