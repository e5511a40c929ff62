"""Reads untrusted files: only regular files, text only in UTF-8, and only relative paths without `..`."""

import errno
import json
import os
import re
import stat
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from tokenlabel.errors import UserError


def open_regular(path: str | Path) -> BinaryIO:
    """Opens a regular file for reading. Refuses pipes, sockets and devices, which could block for ever.

    Raises:
        OSError: the file is missing, cannot be read, or is not a regular file; see `explained`.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, 'not a regular file', str(path))
        return os.fdopen(descriptor, 'rb')
    except BaseException:
        os.close(descriptor)
        raise


def explained(error: OSError) -> str:
    """Reason and remedy as `(reason): remedy`, to append to `FILE cannot be read`."""
    reason = (error.strerror or str(error) or type(error).__name__).strip()
    remedies = {
        FileNotFoundError: 'check the path',
        NotADirectoryError: 'check the path',
        IsADirectoryError: 'give a file',
        PermissionError: 'check its permissions',
    }
    remedy = next((remedy for kind, remedy in remedies.items() if isinstance(error, kind)), 'replace or remove it')
    return f'({reason[:1].lower()}{reason[1:]}): {remedy}'


def read_text(path: str | Path, what: str = 'The file', errors: str = 'strict') -> str:
    """Reads a UTF-8 text file, with or without byte order mark. Line ends become LF.

    Args:
        path: the file.
        what: description of the file, with which an error message begins.
        errors: as in `bytes.decode`; `surrogateescape` for lists of file names, which may contain any bytes.

    Raises:
        UserError: the file cannot be read, or is not UTF-8.
    """
    try:
        with open_regular(path) as file:
            text = file.read().decode('utf-8-sig', errors)
    except OSError as error:
        raise UserError(f'{what} {path} cannot be read {explained(error)}.') from error
    except UnicodeDecodeError as error:
        where = f'{error.reason} at byte {error.start}'
        raise UserError(f'{what} {path} is not UTF-8 text ({where}): save it as UTF-8.') from error
    return text.replace('\r\n', '\n').replace('\r', '\n')


def read_lines(path: str | Path, what: str = 'The file', errors: str = 'strict') -> list[str]:
    """Lines of a text file, stripped of white space, without blank lines at the end.

    Raises:
        UserError: as `read_text`.
    """
    lines = [line.strip() for line in read_text(path, what, errors).split('\n')]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def read_names(path: str | Path, what: str = 'The file') -> list[str]:
    """Lines of a text file that are numbered by position, such as class names.

    Raises:
        UserError: as `read_text`, or a line before the last one is blank.
    """
    lines = read_lines(path, what)
    if '' in lines:
        raise UserError(f'{what} {path} is blank in line {lines.index("") + 1}: remove the line, or fill it.')
    return lines


def read_json(path: str | Path, what: str = 'The file') -> object:
    """Reads a JSON file.

    Raises:
        UserError: as `read_text`, or the file is not valid JSON or nested too deeply.
    """
    try:
        return json.loads(read_text(path, what))
    except (ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f'{what} {path} is not valid JSON ({error}): repair or replace it.') from error


def printable(name: str) -> str:
    r"""A file name as printable text; bytes that are not UTF-8 are escaped, such as `\xe9`."""
    name = re.sub('[\udc80-\udcff]', lambda byte: rf'\x{ord(byte[0]) - 0xDC00:02x}', name)
    return name.encode('utf-8', 'backslashreplace').decode()


def relative_name(name: str, source: str | Path) -> str:
    """Checks that a path stored in a file, such as the name of an archive member, is relative and safe.

    Args:
        name: the path.
        source: the file that contains it, for messages.

    Returns:
        The path without `.` and empty parts.

    Raises:
        UserError: the path is absolute or empty, or contains `..` or a zero byte.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or '..' in re.split(r'[/\\]', name) or not path.parts or '\0' in name:
        raise UserError(
            f'{source} contains the path {name!r}, which is absolute, empty or leads outside its folder: '
            'write the file again with relative paths without `..`.'
        )
    return path.as_posix()
