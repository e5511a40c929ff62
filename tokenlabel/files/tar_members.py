"""What lies where in tar files, so that any member of theirs can be read at once.

Python's `tarfile` keeps an archive open, whose position forked workers would share, and takes several times as long,
minutes for the millions of members of ImageNet's shards. Here a member is an offset and a length, read by position.
Nothing that a header says is taken on trust: neither sizes nor lengths of names.
"""

import errno
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tokenlabel.files.reading import open_regular

_BLOCK = 512
_REGULAR = (b'0', b'\0', b'7')
_LINKS = (b'1', b'2')
# links, devices and folders, which have no contents whatever their size says
_EMPTY = (*_LINKS, b'3', b'4', b'5', b'6')
_MAX_HEADER = 2**20  # bytes of a pax header or a long name
_MAX_NAME = 4096  # bytes; a longer one could not be unpacked anywhere


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


def members(descriptor: int, begin: int, end: int) -> Iterator[Member]:
    """Regular files of a tar that lies from `begin` to `end` in an open file; ustar, GNU and pax headers.

    Raises:
        ValueError: it is cut off or damaged.
    """
    return (entry for entry in entries(descriptor, begin, end) if isinstance(entry, Member))


def entries(descriptor: int, begin: int, end: int, ended: bool = False) -> Iterator[Member | Link]:
    """As `members`, with the links.

    Args:
        descriptor: of the file.
        begin, end: of the tar in it.
        ended: the block of zeros after the last member may not be missing.
    """
    longer_name = longer_target = size_to_come = None
    while begin < end:
        header = os.pread(descriptor, min(_BLOCK, end - begin), begin)
        if len(header) < _BLOCK:
            raise ValueError('it is cut off')
        if not header.strip(b'\0'):
            return
        kind, size = header[156:157], 0 if header[156:157] in _EMPTY else _number(header[124:136], begin)
        if sum(header) - sum(header[148:156]) + 8 * ord(' ') != _number(header[148:156], begin):
            raise ValueError(f'no header where one belongs, at byte {begin}')
        if size_to_come is not None and kind not in (b'x', b'g', b'L', b'K', *_EMPTY):
            size = size_to_come
        offset = begin + _BLOCK
        following = offset + -(-size // _BLOCK) * _BLOCK
        if following > end:
            raise ValueError('it is cut off')
        if kind in (b'x', b'L', b'K'):
            if size > _MAX_HEADER:
                raise ValueError(f'a header of {size} bytes, at byte {begin}')
            contents = os.pread(descriptor, size, offset)
            if kind == b'L':
                longer_name = _text(contents)
            elif kind == b'K':
                longer_target = _text(contents)
            else:
                records = _pax_records(contents, begin)
                if any(key.startswith('GNU.sparse') for key in records):
                    raise ValueError('it holds sparse files')
                longer_name = records.get('path', longer_name)
                longer_target = records.get('linkpath', longer_target)
                size_to_come = _decimal(records['size'], begin) if 'size' in records else None
        elif kind != b'g':
            name = longer_name or _name(header)
            if len(name) > _MAX_NAME:
                raise ValueError(f'a name of {len(name)} characters, at byte {begin}')
            if kind in _LINKS:
                yield Link(name, longer_target or _text(header[157:257]), kind == b'2')
            elif kind in _REGULAR and not name.endswith('/'):  # as tars of old wrote folders
                yield Member(name, offset, size)
            elif kind not in (*_REGULAR, *_EMPTY):
                raise ValueError(f'it holds a file of kind {kind!r}')
            longer_name = longer_target = size_to_come = None
        begin = following
    if ended:
        raise ValueError('its end is missing')


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


def _name(header: bytes) -> str:
    name = _text(header[:100])
    # other magics use the prefix's place for other things
    return f'{_text(header[345:500])}/{name}' if header[257:263] == b'ustar\0' and header[345] else name


def _text(field: bytes) -> str:
    return field.partition(b'\0')[0].decode('utf-8', 'surrogateescape')


def _number(field: bytes, place: int) -> int:
    """Octal digits, or from 8 GB on a binary number behind a set top bit."""
    if field[0] & 0x80:
        return int.from_bytes(field, 'big') & ~(0x80 << 8 * (len(field) - 1))
    digits = field.strip(b' \0') or b'0'
    if not re.fullmatch(b'[0-7]+', digits):
        raise ValueError(f'no header where one belongs, at byte {place}')
    return int(digits, 8)


def _decimal(digits: str | bytes, place: int) -> int:
    """A number in a pax header, which is neither negative nor beyond what files can be."""
    if not re.fullmatch('[0-9]{1,18}', digits if isinstance(digits, str) else digits.decode('latin-1')):
        raise ValueError(f'a damaged pax header, at byte {place}')
    return int(digits)


def _pax_records(data: bytes, place: int) -> dict[str, str]:
    """Lines of `length key=value`, the length counting the line itself."""
    records = {}
    while data.strip(b'\0'):
        digits, space, _ = data.partition(b' ')
        length = _decimal(digits, place)
        if not space or not len(digits) + 1 < length <= len(data):
            raise ValueError(f'a damaged pax header, at byte {place}')
        key, _, value = data[len(digits) + 1 : length].rstrip(b'\n').partition(b'=')
        records[key.decode('utf-8', 'surrogateescape')] = value.decode('utf-8', 'surrogateescape')
        data = data[length:]
    return records
