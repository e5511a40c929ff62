"""Checks, before a command starts its work, that its outputs can be written."""

import errno
import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from tokenlabel.errors import UserError
from tokenlabel.files.writing import disk_errors, temporary_beside

TRIAL = bytes(4096)  # an empty file could be created on a full disk


def check_output_file(path: str | Path, suffixes: Collection[str] = ()) -> None:
    """Checks that a file can be written; leaves nothing behind and does not change an existing file.

    Args:
        path: of the file; folders that are missing can be made later.
        suffixes: in small letters, one of which the name has to end with; none are asked for when empty.

    Raises:
        UserError: a folder or a device is there, the place cannot be written to, or the name ends otherwise.
    """
    path = Path(path)
    if suffixes and path.suffix.lower() not in suffixes:
        raise UserError(f'{path} is no kind of picture: end its name with {_listed(suffixes)}.')
    if os.path.isdir(path):
        raise UserError(f'{path} is a folder, where a file is to be written: give the name of a file.')
    if os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f'{path} is no regular file: give another name.')
    with disk_errors(path):
        if os.path.isfile(path) and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        _try_folder(path.parent, path.name)


def check_output_folder(path: str | Path) -> None:
    """Checks that a folder exists or can be made, and can be written to; leaves nothing behind.

    Raises:
        UserError: a file is there, or the place cannot be written to.
    """
    with disk_errors(path):
        _try_folder(Path(path))


def _try_folder(folder: Path, name: str = '') -> None:
    """Writes a file into the deepest existing part of a folder, and removes it."""
    place = folder.absolute()
    missing = [name] if name else []
    while not os.path.lexists(place):
        missing.append(place.name)
        place = place.parent
    if not os.path.isdir(place):
        raise UserError(f'{place} is a file, where a folder is needed: give another place, or rename it.')
    for part in missing:
        with suppress(FileNotFoundError):
            os.lstat(place / part)  # fails if a name is too long
    temporary = temporary_beside(place / 'trial')
    try:
        with open(temporary, 'wb') as file:
            file.write(TRIAL)
            file.flush()
            os.fsync(file.fileno())
    finally:
        temporary.unlink(missing_ok=True)


def _listed(suffixes: Collection[str]) -> str:
    *others, last = suffixes
    return f'{", ".join(others)} or {last}'
