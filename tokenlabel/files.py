"""Writing files so that nobody ever sees half of one."""

import json
import math
import os
import socket
from pathlib import Path


def write_atomically(path: str | Path, data: bytes | str) -> None:
    """Writes a file so that at every moment the old or the new one is there, whole. Processes may do it at once.

    Args:
        path: its folder is made where missing.
        data: contents; text is written as UTF-8.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f'.{path.name}.{socket.gethostname()}-{os.getpid()}.tmp')
    try:
        with open(unfinished, 'wb') as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_json(path: str | Path, data: object) -> None:
    """Writes nested dicts and lists as indented JSON, atomically; NaN and infinities, which JSON has not, become null.

    Args:
        path: its folder is made where missing.
        data: what `json.dumps` takes.
    """
    write_atomically(path, json.dumps(_finite(data), indent=2, allow_nan=False) + '\n')


def is_temporary(file: Path) -> bool:
    """Whether a file is what `write_atomically` leaves behind when it is killed."""
    return file.name.startswith('.') and file.name.endswith('.tmp')


def sync_folder(folder: Path) -> None:
    """Makes renames within a folder survive a crash."""
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
