"""The score maps of the 2021 release as it is handed on: a folder, a tar or a zip of `class/image.pt` files."""

import os
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Protocol

import numpy as np

from tokenlabel.errors import UserError

SUFFIX = '.pt'
COMPRESSIONS = {b'\x1f\x8b': 'gzip', b'BZh': 'bzip2', b'\xfd7zXZ': 'xz', b'\x28\xb5\x2f\xfd': 'zstd'}
ZIP_HEADER = 30  # bytes of a member's own header, before its name


class Archive(Protocol):
    """Files in any of the containers; can be pickled, and read by several processes at once.

    Attributes:
        names: of the files, as they stand in the container.
    """

    names: list[str]

    def read(self, index: int) -> bytes:
        """Contents of a file. Raises `OSError` or `ValueError` where the container is damaged."""

    def path(self, index: int) -> str:
        """The file's name for people."""


class FolderArchive:
    """Files below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names = sorted(
            Path(folder, name).relative_to(root).as_posix()
            for folder, _, names in os.walk(root)
            for name in names
            if _is_map(name)
        )

    def read(self, index: int) -> bytes:
        return (self.root / self.names[index]).read_bytes()

    def path(self, index: int) -> str:
        return str(self.root / self.names[index])


class TarArchive:
    """Files in an uncompressed tar. Its headers are read once, after which any file is one read away."""

    def __init__(self, file: Path) -> None:
        self.file, self.names = file, []
        places = []
        with tarfile.open(file, 'r:') as tar:
            while (member := tar.next()) is not None:
                # tarfile keeps all it has seen: a gigabyte for a million files
                tar.members.clear()
                if member.isreg() and _is_map(member.name):
                    self.names.append(member.name.removeprefix('./'))
                    places.append((member.offset_data, member.size))
            # tarfile takes a header cut off for the end
            if _read(file, tar.offset, tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError('its end is missing')
        self._places = np.array(places, dtype=np.int64)

    def read(self, index: int) -> bytes:
        return _read(self.file, *map(int, self._places[index]))

    def path(self, index: int) -> str:
        return f'{self.file}: {self.names[index]}'


class ZipArchive:
    """Files in a zip, stored or deflated. Worker processes share one compact directory instead of `zipfile`'s."""

    def __init__(self, file: Path) -> None:
        self.file = file
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
        # a zip cut off may end in a map, which is a zip itself
        if min((member.header_offset for member in members), default=0):
            raise zipfile.BadZipFile('its end is missing')
        members = [member for member in members if _is_map(member.filename)]
        self.names = [member.filename for member in members]
        foreign = [m.filename for m in members if m.flag_bits & 1 or m.compress_type not in (0, zipfile.ZIP_DEFLATED)]
        if foreign:
            raise UserError(f'{file}: {foreign[0]} is encrypted or compressed in an unusual way: unpack the zip first.')
        self._places = np.array(
            [(m.header_offset, m.compress_size, m.compress_type, m.CRC) for m in members], dtype=np.int64
        )

    def read(self, index: int) -> bytes:
        offset, size, method, checksum = map(int, self._places[index])
        header = _read(self.file, offset, ZIP_HEADER)
        names = int.from_bytes(header[26:28], 'little') + int.from_bytes(header[28:30], 'little')
        data = _read(self.file, offset + ZIP_HEADER + names, size)
        if method == zipfile.ZIP_DEFLATED:
            try:
                data = zlib.decompress(data, -zlib.MAX_WBITS)
            except zlib.error as error:
                raise ValueError(str(error)) from error
        if zlib.crc32(data) != checksum:
            raise ValueError('its checksum differs')
        return data

    def path(self, index: int) -> str:
        return f'{self.file}: {self.names[index]}'


def open_archive(source: str | Path) -> Archive:
    """The `.pt` files of a folder, tar or zip.

    Raises:
        UserError: nothing there, no such files in it, a container that is compressed as a whole (so that no file can
            be read without all before it), damaged, or of another kind.
    """
    source = Path(source)
    archive = FolderArchive(source) if source.is_dir() else _open_file(source)
    if not archive.names:
        raise UserError(
            f'{source} holds no {SUFFIX} files: give the score maps of the release, as class/image{SUFFIX}.'
        )
    return archive


def stems(archive: Archive) -> list[str]:
    """What the maps are named after, `class/image`: their names without suffix and without folders that all share."""
    # what the first and the last name in order begin with, all do
    first, last = (name.split('/') for name in (min(archive.names), max(archive.names)))
    depth, shared = 1 + min(name.count('/') for name in archive.names), 0
    while shared < depth - 2 and first[shared] == last[shared]:
        shared += 1
    return [name.removesuffix(SUFFIX).split('/', shared)[shared] for name in archive.names]


def _open_file(file: Path) -> Archive:
    try:
        with open(file, 'rb') as opened:
            start = opened.read(8)
    except OSError as error:
        raise UserError(
            f'Cannot read {file} ({error.strerror}): give a folder, a tar or a zip of score maps.'
        ) from error
    for magic, compression in COMPRESSIONS.items():
        if start.startswith(magic):
            raise UserError(
                f'{file} is compressed as a whole ({compression}), so its maps can only be read one after the other: '
                f'unpack it with `mkdir FOLDER && tar -xf {file} -C FOLDER` and give the folder.'
            )
    try:
        if zipfile.is_zipfile(file) and start.startswith(b'PK'):
            return ZipArchive(file)
        return TarArchive(file)
    except UserError:
        raise
    except (tarfile.TarError, zipfile.BadZipFile, ValueError) as error:
        raise UserError(f'{file} is no tar or zip, or is damaged ({error}): download it again.') from error


def _is_map(name: str) -> bool:
    # macOS adds files named ._x to archives
    base = name.rpartition('/')[2]
    return base.endswith(SUFFIX) and not base.startswith('._')


def _read(file: Path, offset: int, size: int) -> bytes:
    with open(file, 'rb') as opened:
        opened.seek(offset)
        data = opened.read(size)
    if len(data) != size:
        raise ValueError('the file ends before it')
    return data
