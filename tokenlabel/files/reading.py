"""Reading untrusted files: regular files only, text in UTF-8, and member names that stay below their folder."""

import errno
import json
import os
import re
import stat
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from tokenlabel.errors import UserError


def open_regular(path: str | Path) -> BinaryIO:
    """Opens a regular file for reading.

    A pipe, socket or device could be waited for for ever, and is refused without waiting.

    Raises:
        OSError: it is missing, may not be read, or is no regular file; see `explained`.
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
    """Reason and remedy for a file that cannot be read, to append to `FILE cannot be read`."""
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
    """Reads a UTF-8 text file, with or without byte order mark; line ends become LF.

    Args:
        path: the file.
        what: what it is, to begin a message.
        errors: `surrogateescape` for lists of file names, which may be any bytes.

    Raises:
        UserError: it cannot be read, or is no UTF-8.
    """
    try:
        with open_regular(path) as file:
            text = file.read().decode('utf-8-sig', errors)
    except OSError as error:
        raise UserError(f'{what} {path} cannot be read {explained(error)}.') from error
    except UnicodeDecodeError as error:
        where = f'{error.reason} at byte {error.start}'
        raise UserError(f'{what} {path} is no UTF-8 text ({where}): save it as UTF-8.') from error
    return text.replace('\r\n', '\n').replace('\r', '\n')


def read_lines(path: str | Path, what: str = 'The file', errors: str = 'strict') -> list[str]:
    """The stripped lines of a text file, without blank lines at the end.

    Raises:
        UserError: as `read_text`.
    """
    lines = [line.strip() for line in read_text(path, what, errors).split('\n')]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def read_names(path: str | Path, what: str = 'The file') -> list[str]:
    """The lines of a text file in which every line has a meaning, such as class names in order.

    Raises:
        UserError: as `read_text`; a line between others is blank, so that those after it would be numbered wrongly.
    """
    lines = read_lines(path, what)
    if '' in lines:
        raise UserError(f'{what} {path} has a blank line {lines.index("") + 1} before others: remove it, or fill it.')
    return lines


def read_json(path: str | Path, what: str = 'The file') -> object:
    """Reads a JSON file.

    Raises:
        UserError: as `read_text`; it is no JSON, or nested too deep.
    """
    try:
        return json.loads(read_text(path, what))
    except (ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f'{what} {path} is no JSON ({error}): repair or replace it.') from error


def printable(name: str) -> str:
    r"""A file name as printable text: bytes that are not UTF-8 are written as `\xe9`."""
    name = re.sub('[\udc80-\udcff]', lambda byte: rf'\x{ord(byte[0]) - 0xDC00:02x}', name)
    return name.encode('utf-8', 'backslashreplace').decode()


def relative_name(name: str, source: str | Path) -> str:
    """Checks a name stored in a file (a key, a member of an archive) as a relative path below its folder.

    Args:
        name: what the file says.
        source: the file, for messages.

    Returns:
        The name without `.`, empty parts and a leading `./`.

    Raises:
        UserError: it is absolute, empty, holds `..` or a zero byte, so that it could name a place elsewhere.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or '..' in re.split(r'[/\\]', name) or not path.parts or '\0' in name:
        raise UserError(
            f'{source} names {name!r}, which does not lie below a folder: names are relative paths without `..`; '
            'write the file anew with such names.'
        )
    return path.as_posix()
