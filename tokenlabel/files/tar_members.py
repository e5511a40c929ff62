"""Random access to the members of tar files.

Python's `tarfile` reads the headers. Members are then read by offset, because forked workers would share the position
of an open archive.
"""

import errno
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tokenlabel.files.reading import open_regular

_MAX_HEADER = 2**16  # bytes of a pax header or a long name
_MAX_NAME = 4096  # characters, the longest path on Linux
# `tarfile` raises these for damaged headers, the last for a thousand headers before one member.
_DAMAGE = (tarfile.TarError, ValueError, LookupError, OverflowError, RecursionError)


class Member(NamedTuple):
    """A file in a tar: its name, and the offset and size of its content in bytes."""

    name: str
    offset: int
    size: int


class Link(NamedTuple):
    """A link in a tar. The target is relative to the link's folder if it is symbolic, else to the root of the tar."""

    name: str
    target: str
    is_symbolic: bool


def entries(file: BinaryIO, ended: bool = False) -> Iterator[Member | Link]:
    """Regular files and links of a tar in stored order; supports ustar, GNU and pax headers.

    Args:
        file: an open, uncompressed tar; a regular file.
        ended: whether the block of zeros after the last member is required.

    Raises:
        OSError: the file cannot be read.
        ValueError: the tar is truncated or damaged, or contains anything but files, folders, links and devices.
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
    """Reads members of many tars and keeps at most `max_open` of them open. Processes and threads may share it."""

    def __init__(self, paths: Sequence[Path], max_open: int = 64) -> None:
        self.paths = paths
        self.max_open = max_open
        self._open: dict[int, BinaryIO] = {}

    def read(self, tar: int, offset: int, size: int) -> bytes:
        """Reads `size` bytes at `offset` from tar number `tar`.

        Raises:
            OSError: the tar is missing, or has become shorter.
        """
        file = self._open.pop(tar, None) or open_regular(self.paths[tar])
        self._open[tar] = file
        if len(self._open) > self.max_open:
            self._open.pop(next(iter(self._open)), None)
        data = os.pread(file.fileno(), size, offset)
        if len(data) < size:
            raise OSError(errno.EIO, 'the tar ends before this member', str(self.paths[tar]))
        return data

    def __getstate__(self) -> dict:
        return self.__dict__ | {'_open': {}}


class _Headers:
    """A file that limits each read of `tarfile` to the size of a header.

    A damaged header may claim gigabytes, and `tarfile` needs quadratic time for a pax header.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise ValueError(f'a header of {size} bytes, at byte {self.tell()}')
        return self._file.read(size)


def _checked(member: tarfile.TarInfo, end: int) -> Iterator[Member | Link]:
    """Yields the entry of a regular file or link, and nothing for a folder or device."""
    if member.issparse():
        raise ValueError('it holds sparse files')
    # with a negative size `tarfile` would move backwards and read the same members for ever
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
    """Raises `ValueError` if `tarfile` mistook a damaged or missing header for the end of the tar."""
    block = os.pread(file.fileno(), tarfile.BLOCKSIZE, offset)
    if 0 < len(block) < tarfile.BLOCKSIZE:
        raise ValueError('it is cut off')
    if block.strip(b'\0'):
        raise ValueError(f'a header is missing at byte {offset}')
    if ended and not block:
        raise ValueError('its end is missing')
