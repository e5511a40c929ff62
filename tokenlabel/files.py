"""Writing files so that nobody ever sees half of one."""

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
