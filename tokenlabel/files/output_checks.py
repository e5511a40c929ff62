"""Checks, before a command starts its work, that its outputs can be written."""

import errno
import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from tokenlabel.errors import UserError
from tokenlabel.files.writing import disk_errors, temporary_beside

TRIAL = bytes(4096)  # not empty, because a full disk still takes an empty file


def check_output_file(path: str | Path, suffixes: Collection[str] = ()) -> None:
    """Checks that a file can be written. Leaves nothing behind and does not change an existing file.

    Args:
        path: the file; its folder need not exist yet.
        suffixes: allowed suffixes in lower case; all are allowed if this is empty.

    Raises:
        UserError: `path` is a folder or a device, has another suffix, or cannot be written.
    """
    path = Path(path)
    if suffixes:
        check_suffix(path, suffixes)
    if os.path.isdir(path):
        raise UserError(f'{path} is a folder: give the name of a file to write.')
    if os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f'{path} is not a regular file: give another name.')
    with disk_errors(path):
        if os.path.isfile(path) and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        _try_folder(path.parent, path.name)


def check_suffix(path: Path, suffixes: Collection[str]) -> None:
    """Raises `UserError` unless the suffix of a picture is one of `suffixes`, in lower case."""
    if path.suffix.lower() not in suffixes:
        raise UserError(f'{path} does not have the suffix of a picture: end its name with {_listed(suffixes)}.')


def check_output_folder(path: str | Path) -> None:
    """Checks that a folder exists or can be created, and that files can be written to it. Leaves nothing behind.

    Raises:
        UserError: `path` or one of its parents is a file, or cannot be written to.
    """
    with disk_errors(path):
        _try_folder(Path(path))


def _try_folder(folder: Path, name: str = '') -> None:
    """Writes a file to the folder, or to its closest existing parent, and removes it."""
    place = folder.absolute()
    missing = [name] if name else []
    while not os.path.lexists(place):
        missing.append(place.name)
        place = place.parent
    if not os.path.isdir(place):
        raise UserError(f'{place} is a file, but a folder is needed: give another folder, or rename the file.')
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
    return f'{", ".join(others)} or {last}' if others else last
