"""What lies where in tar files, so that any member of theirs can be read at once.

Python's `tarfile` reads the headers. Members are read by their offset: forked workers would share an open archive's
position.
"""

import errno
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tokenlabel.files.reading import open_regular

_MAX_HEADER = 2**16  # bytes of a pax header or a long name
_MAX_NAME = 4096  # characters; a longer one could not be unpacked anywhere
# What damaged headers make `tarfile` raise; the last is of a thousand headers before one member.
_DAMAGE = (tarfile.TarError, ValueError, LookupError, OverflowError, RecursionError)


class Member(NamedTuple):
    """A file in a tar: its name, and the bytes it takes in the file."""

    name: str
    offset: int
    size: int


class Link(NamedTuple):
    """A link in a tar: its name, that of what it leads to, and whether that counts from the link's own folder."""

    name: str
    target: str
    is_symbolic: bool


def entries(file: BinaryIO, ended: bool = False) -> Iterator[Member | Link]:
    """Regular files and links of a tar, in its order; ustar, GNU and pax headers.

    Args:
        file: an open regular file, not compressed.
        ended: the block of zeros after the last member may not be missing.

    Raises:
        OSError: it cannot be read.
        ValueError: it is cut off or damaged, or holds anything but files, folders, links and devices.
    """
    end = os.fstat(file.fileno()).st_size
    try:
        with tarfile.open(fileobj=_Headers(file), mode='r:', encoding='utf-8') as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # there may be millions
                yield from _checked(member, end)
            _check_end(file, archive.offset, ended)
    except _DAMAGE as error:
        cut_off = any(words in str(error) for words in ('unexpected end of data', 'truncated', 'empty header'))
        raise ValueError('it is cut off' if cut_off else str(error)) from error


class TarFiles:
    """Reads members of many tars, a few of which it keeps open. Processes and threads may share it."""

    def __init__(self, paths: Sequence[Path], max_open: int = 64) -> None:
        self.paths = paths
        self.max_open = max_open
        self._open: dict[int, BinaryIO] = {}

    def read(self, tar: int, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on of tar number `tar`.

        Raises:
            OSError: it is gone, or has become shorter.
        """
        file = self._open.pop(tar, None) or open_regular(self.paths[tar])
        self._open[tar] = file
        if len(self._open) > self.max_open:
            self._open.pop(next(iter(self._open)), None)
        data = os.pread(file.fileno(), size, offset)
        if len(data) < size:
            raise OSError(errno.EIO, 'the tar ends before it', str(self.paths[tar]))
        return data

    def __getstate__(self) -> dict:
        return self.__dict__ | {'_open': {}}


class _Headers:
    """A file as `tarfile` may read it: no more at once than a header takes.

    A header may claim gigabytes, and the time that `tarfile` takes for a pax header grows with its length squared.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise ValueError(f'a header of {size} bytes, at byte {self.tell()}')
        return self._file.read(size)


def _checked(member: tarfile.TarInfo, end: int) -> Iterator[Member | Link]:
    """The entry of a member, none of folders and devices."""
    if member.issparse():
        raise ValueError('it holds sparse files')
    # by a negative size `tarfile` would go back, and read the same members for ever
    if member.size < 0 or (member.isreg() and member.offset_data + member.size > end):
        raise ValueError('it is cut off')
    if not 0 < len(member.name) <= _MAX_NAME:
        raise ValueError(f'a name of {len(member.name)} characters, at byte {member.offset}')
    if '\0' in member.name:
        raise ValueError(f'a damaged name, at byte {member.offset}')
    if member.islnk() or member.issym():
        yield Link(member.name, member.linkname, member.issym())
    elif member.isreg():
        yield Member(member.name, member.offset_data, member.size)
    elif not (member.isdir() or member.isdev()):
        raise ValueError(f'it holds a file of kind {member.type!r}')


def _check_end(file: BinaryIO, offset: int, ended: bool) -> None:
    """Raises `ValueError` where `tarfile` took a damaged or missing header for the end."""
    block = os.pread(file.fileno(), tarfile.BLOCKSIZE, offset)
    if 0 < len(block) < tarfile.BLOCKSIZE:
        raise ValueError('it is cut off')
    if block.strip(b'\0'):
        raise ValueError(f'no header where one belongs, at byte {offset}')
    if ended and not block:
        raise ValueError('its end is missing')
