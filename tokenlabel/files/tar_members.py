"""What lies where in tar files, so that any member of theirs can be read at once.

Python's `tarfile` reads the headers. It keeps one position per open archive, which forked workers would share; here a
member is an offset and a length, read by position.
"""

import errno
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tokenlabel.files.reading import open_regular

_BLOCK = 512
_MAX_HEADER = 2**20  # bytes of a pax header or a long name
_MAX_NAME = 4096  # characters; a longer one could not be unpacked anywhere
# What a damaged header makes `tarfile` raise, chains of headers for one member included.
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


def entries(path: Path, ended: bool = False) -> Iterator[Member | Link]:
    """Regular files and links of a tar, in its order; ustar, GNU and pax headers.

    Args:
        path: The file, not compressed.
        ended: The block of zeros after the last member may not be missing.

    Raises:
        OSError: It cannot be read.
        ValueError: It is cut off or damaged, or holds what is neither file, folder, link nor device.
    """
    with open_regular(path) as file:
        end = os.fstat(file.fileno()).st_size
        try:
            with tarfile.open(fileobj=_Headers(file), mode='r:') as archive:
                while (member := archive.next()) is not None:
                    archive.members.clear()  # which would hold millions
                    yield from _entry(member, end)
                _check_end(file, archive.offset, ended)
        except _DAMAGE as error:
            cut_off = any(words in str(error) for words in ('unexpected end of data', 'truncated', 'empty header'))
            reason = 'it is cut off' if cut_off else str(error) if type(error) is ValueError else f'damaged, {error}'
            raise ValueError(reason) from error


def _entry(member: tarfile.TarInfo, end: int) -> Iterator[Member | Link]:
    # `tarfile` would read a negative size for ever
    if member.size < 0 or member.offset_data + (member.size if member.isreg() else 0) > end:
        raise ValueError('it is cut off')
    if not 0 < len(member.name) <= _MAX_NAME:
        raise ValueError(f'a name of {len(member.name)} characters, at byte {member.offset}')
    if member.issparse():
        raise ValueError('it holds sparse files')
    if member.islnk() or member.issym():
        yield Link(member.name, member.linkname, member.issym())
    elif member.isreg():
        yield Member(member.name, member.offset_data, member.size)
    elif not (member.isdir() or member.isdev()):
        raise ValueError(f'it holds a file of kind {member.type!r}')


def _check_end(file: BinaryIO, offset: int, ended: bool) -> None:
    """Makes sure that `tarfile`, which ends without a word at a damaged header, has come to the end.

    Raises:
        ValueError: It has not.
    """
    block = os.pread(file.fileno(), _BLOCK, offset)
    if len(block) == _BLOCK and block.strip(b'\0'):
        raise ValueError(f'no header where one belongs, at byte {offset}')
    if 0 < len(block) < _BLOCK:
        raise ValueError('it is cut off')
    if ended and not block:
        raise ValueError('its end is missing')


class _Headers:
    """A file of which no more is read at once than a header may be long, whatever a header says."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise ValueError(f'a header of {size} bytes, at byte {self.tell()}')
        return self.file.read(size)


class TarFiles:
    """Reads members of many tars, a few of which it keeps open. Processes and threads may share it."""

    def __init__(self, paths: Sequence[Path], max_open: int = 64) -> None:
        self.paths = paths
        self.max_open = max_open
        self._open: dict[int, OpenFile] = {}

    def read(self, tar: int, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on of tar number `tar`.

        Raises:
            OSError: it is gone, or has become shorter.
        """
        file = self._open.pop(tar, None) or OpenFile(self.paths[tar])
        self._open[tar] = file
        if len(self._open) > self.max_open:
            self._open.pop(next(iter(self._open)), None)
        data = os.pread(file.descriptor, size, offset)
        if len(data) < size:
            raise OSError(errno.EIO, 'the tar ends before it', str(self.paths[tar]))
        return data

    def __getstate__(self) -> dict:
        return self.__dict__ | {'_open': {}}


class OpenFile:
    """A file descriptor of a regular file, closed at the latest once nobody refers to it any more."""

    def __init__(self, path: Path) -> None:
        with open_regular(path) as file:
            self.descriptor = os.dup(file.fileno())

    def close(self) -> None:
        descriptor, self.descriptor = self.descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __del__(self) -> None:
        if hasattr(self, 'descriptor'):
            self.close()
