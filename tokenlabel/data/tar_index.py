"""What lies where in tar files, so that any image of theirs can be read at once.

timm reads tars of images too, but keeps an archive open, whose position forked workers would share, and its WebDataset
reader only streams. Here a member is an offset and a length, read by position; headers are read by themselves, as
Python's `tarfile` takes several times as long, minutes for the millions of members of ImageNet's shards.
"""

import json
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tokenlabel.errors import UserError

LABEL_SUFFIXES = ('.cls', '.json')

_BLOCK = 512
_REGULAR = (b'0', b'\0', b'7')
# links, devices and folders, which have no contents whatever their size says
_EMPTY = (b'1', b'2', b'3', b'4', b'5', b'6')


class TarIndex(NamedTuple):
    """The images of one tar, in the order of the archive.

    Attributes:
        names: posix path of each image below the tar; a tar within the tar counts as a folder of its name.
        offsets, sizes: of each image in the file, in bytes.
        labels: what `key.cls`, or `label` in `key.json`, says of the image `key.jpg`, as WebDataset pairs them; by key.
    """

    names: list[str]
    offsets: list[int]
    sizes: list[int]
    labels: dict[str, str]


class Member(NamedTuple):
    """A file in a tar: its name, and the bytes it takes in the file."""

    name: str
    offset: int
    size: int


def index_tar(path: Path, suffixes: Collection[str]) -> TarIndex:
    """Find the images of a tar by its headers; of the rest only labels are read.

    Args:
        path: the file, not compressed.
        suffixes: of images, lower case with their dot.

    Raises:
        UserError: the file is missing, compressed, damaged, or holds a label that cannot be read.
    """
    index = TarIndex([], [], [], {})
    try:
        with closing(_OpenFile(path)) as file:
            _add(file.descriptor, '', 0, os.fstat(file.descriptor).st_size, index, suffixes)
    except OSError as error:
        raise UserError(f'{path} cannot be read ({error.strerror}).') from error
    except ValueError as error:
        raise UserError(
            f'{path} cannot be read as a tar ({error}): fetch it again if it is cut off, and unpack it to a plain '
            '.tar if it is compressed.'
        ) from error
    return index


def members(descriptor: int, begin: int, end: int) -> Iterator[Member]:
    """Regular files of a tar that lies from `begin` to `end` in an open file; ustar, GNU and pax headers.

    Raises:
        ValueError: it is cut off or damaged.
    """
    longer_name, size_to_come = None, None
    while begin < end:
        header = os.pread(descriptor, _BLOCK, begin)
        if len(header) < _BLOCK:
            raise ValueError('it is cut off')
        if not header.strip(b'\0'):
            return
        kind, size = header[156:157], _number(header[124:136])
        if sum(header) - sum(header[148:156]) + 8 * ord(' ') != _number(header[148:156]):
            raise ValueError(f'no header where one belongs, at byte {begin}')
        size = 0 if kind in _EMPTY else size
        offset = begin + _BLOCK
        if kind == b'x':
            records = _pax_records(os.pread(descriptor, size, offset))
            if any(key.startswith('GNU.sparse') for key in records):
                raise ValueError('it holds sparse files')
            longer_name = records.get('path', longer_name)
            size_to_come = int(records['size']) if 'size' in records else None
        elif kind == b'L':
            longer_name = _text(os.pread(descriptor, size, offset))
        elif kind not in (b'g', b'K'):
            size = size if size_to_come is None else size_to_come
            if kind in _REGULAR:
                yield Member(longer_name or _name(header), offset, size)
            elif kind not in _EMPTY:
                raise ValueError(f'it holds a file of kind {kind!r}')
            longer_name, size_to_come = None, None
        begin = offset + -(-size // _BLOCK) * _BLOCK
        if begin > end:
            raise ValueError('it is cut off')


def sample_key(name: str) -> str:
    """WebDataset's key of a member: its path up to the first dot of the file name."""
    folder, _, file = name.rpartition('/')
    return f'{folder}/{file.partition(".")[0]}' if folder else file.partition('.')[0]


class TarFiles:
    """Reads members of many tars, a few of which it keeps open. Processes and threads may share it."""

    def __init__(self, paths: Sequence[Path], max_open: int = 64) -> None:
        self.paths = paths
        self.max_open = max_open
        self._open: dict[int, _OpenFile] = {}

    def read(self, tar: int, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on of tar number `tar`."""
        file = self._open.pop(tar, None) or _OpenFile(self.paths[tar])
        self._open[tar] = file
        if len(self._open) > self.max_open:
            self._open.pop(next(iter(self._open)), None)
        return os.pread(file.descriptor, size, offset)

    def __getstate__(self) -> dict:
        return self.__dict__ | {'_open': {}}


class _OpenFile:
    """A file descriptor, closed at the latest once nobody refers to it any more."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)

    def close(self) -> None:
        descriptor, self.descriptor = self.descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __del__(self) -> None:
        if hasattr(self, 'descriptor'):
            self.close()


def _add(descriptor: int, folder: str, begin: int, end: int, index: TarIndex, suffixes: Collection[str]) -> None:
    """Add the members of a tar that lies from `begin` to `end` in the file, as those of `folder`."""
    for name, offset, size in members(descriptor, begin, end):
        name = (PurePosixPath(folder) / name.lstrip('/')).as_posix()
        suffix = os.path.splitext(name)[1].lower()
        if suffix in suffixes:
            index.names.append(name)
            index.offsets.append(offset)
            index.sizes.append(size)
        elif suffix == '.tar':
            _add(descriptor, name[: -len(suffix)], offset, offset + size, index, suffixes)
        elif suffix in LABEL_SUFFIXES and (key := sample_key(name)) + suffix == name:
            label = _label(os.pread(descriptor, size, offset), suffix, name)
            if label is not None and (suffix == '.cls' or key not in index.labels):
                index.labels[key] = label


def _label(content: bytes, suffix: str, name: str) -> str | None:
    try:
        if suffix == '.cls':
            return content.decode().strip()
        record = json.loads(content)
    except ValueError as error:
        raise ValueError(f'its label {name} is damaged, {error}') from error
    label = record.get('label', record.get('cls')) if isinstance(record, dict) else None
    return str(label) if isinstance(label, int | str) else None


def _name(header: bytes) -> str:
    name = _text(header[:100])
    # other magics use the prefix's place for other things
    return f'{_text(header[345:500])}/{name}' if header[257:263] == b'ustar\0' and header[345] else name


def _text(field: bytes) -> str:
    return field.partition(b'\0')[0].decode('utf-8', 'surrogateescape')


def _number(field: bytes) -> int:
    """Octal digits, or from 8 GB on a binary number behind a set top bit."""
    if field[0] & 0x80:
        return int.from_bytes(field, 'big') & ~(0x80 << 8 * (len(field) - 1))
    return int(field.strip(b' \0') or b'0', 8)


def _pax_records(data: bytes) -> dict[str, str]:
    """Lines of `length key=value`, the length counting the line itself."""
    records = {}
    while data.strip(b'\0'):
        length = int(data[: data.index(b' ')])
        key, _, value = data[:length].rstrip(b'\n').partition(b' ')[2].partition(b'=')
        records[key.decode()] = value.decode('utf-8', 'surrogateescape')
        data = data[length:]
    return records
