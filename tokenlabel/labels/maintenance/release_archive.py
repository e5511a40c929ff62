"""Containers of the 2021 release's score maps: a folder, a tar or a zip of `class/image.pt` files."""

import os
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Protocol

import numpy as np

from tokenlabel.errors import UserError
from tokenlabel.files.folder_walk import Skipped, find_files, is_hidden, report_skipped
from tokenlabel.files.reading import open_regular, relative_name
from tokenlabel.files.tar_members import Link, entries

SUFFIX = '.pt'
COMPRESSIONS = {b'\x1f\x8b': 'gzip', b'BZh': 'bzip2', b'\xfd7zXZ': 'xz', b'\x28\xb5\x2f\xfd': 'zstd'}
MAX_MAP_BYTES = 2**26  # the release's maps have some thousand
TOO_LARGE = f'has more than {MAX_MAP_BYTES >> 20} MB, which no score map has'
ZIP_HEADER = 30  # bytes of a member's own header, before its name


class Archive(Protocol):
    """Files in a container; it can be pickled and read by several processes at once.

    Attributes:
        names: names of the files in the container.
    """

    names: list[str]

    def read(self, index: int) -> bytes:
        """Contents of a file. Raises `OSError` or `ValueError` if the container is damaged."""

    def path(self, index: int) -> str:
        """The file's name for messages."""


class FolderArchive:
    """Files below a folder."""

    def __init__(self, root: Path) -> None:
        found = find_files(root, [SUFFIX])
        report_skipped(root, len(found.names), found.skipped, 'maps')
        self.root, self.names = root, found.names

    def read(self, index: int) -> bytes:
        with open_regular(self.root / self.names[index]) as file:
            data = file.read(MAX_MAP_BYTES + 1)
        if len(data) > MAX_MAP_BYTES:
            raise ValueError(TOO_LARGE)
        return data

    def path(self, index: int) -> str:
        return str(self.root / self.names[index])


class TarArchive:
    """Files in an uncompressed tar. Its headers are read once; after that, each file takes one read."""

    def __init__(self, file: Path) -> None:
        self.file, self.names = file, []
        places, skipped = [], Skipped()
        with open_regular(file) as opened:
            for entry in entries(opened, ended=True):
                if _is_map(entry.name, skipped):
                    name = relative_name(entry.name, file)
                    if isinstance(entry, Link):
                        skipped.add('links', name)
                        continue
                    self.names.append(name)
                    places.append((entry.offset, entry.size))
        self._places = np.array(places, dtype=np.int64)
        report_skipped(file, len(places), skipped, 'maps')

    def read(self, index: int) -> bytes:
        return _read(self.file, *map(int, self._places[index]))

    def path(self, index: int) -> str:
        return f'{self.file}: {self.names[index]}'


class ZipArchive:
    """Files in a zip, stored or deflated. Worker processes share one compact directory instead of `zipfile`'s."""

    def __init__(self, file: Path) -> None:
        self.file = file
        with open_regular(file) as opened, zipfile.ZipFile(opened) as archive:
            size, members = os.fstat(opened.fileno()).st_size, archive.infolist()
        # a truncated zip may end in a map, which is itself a zip
        if min((member.header_offset for member in members), default=0):
            raise zipfile.BadZipFile('its end is missing')
        skipped = Skipped()
        # zips made on Windows may have backslashes as separators
        names = [member.filename.replace('\\', '/') for member in members]
        found = [
            (relative_name(name, file), m) for name, m in zip(names, members, strict=True) if _is_map(name, skipped)
        ]
        self.names = [name for name, _ in found]
        for name, m in found:
            if m.flag_bits & 1 or m.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise UserError(f'{file}: {name} is encrypted or compressed in an unusual way: unpack the zip first.')
            if m.header_offset + m.compress_size > size:
                raise zipfile.BadZipFile(f'{name} lies beyond its end')
            if max(m.file_size, m.compress_size) > MAX_MAP_BYTES:
                raise UserError(f'{file}: {name} {TOO_LARGE}: remove it from the zip.')
        self._places = np.array(
            [(m.header_offset, m.compress_size, m.file_size, m.compress_type, m.CRC) for _, m in found], dtype=np.int64
        )
        report_skipped(file, len(found), skipped, 'maps')

    def read(self, index: int) -> bytes:
        offset, size, inflated, method, checksum = map(int, self._places[index])
        header = _read(self.file, offset, ZIP_HEADER)
        if not header.startswith(b'PK\3\4'):
            raise ValueError('no header where the directory says')
        names = int.from_bytes(header[26:28], 'little') + int.from_bytes(header[28:30], 'little')
        data = _read(self.file, offset + ZIP_HEADER + names, size)
        if method == zipfile.ZIP_DEFLATED:
            try:
                # at most the size in the directory
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, inflated + 1)
            except zlib.error as error:
                raise ValueError(str(error)) from error
        if len(data) != inflated:
            raise ValueError('its size differs from what the directory says')
        if zlib.crc32(data) != checksum:
            raise ValueError('its checksum differs')
        return data

    def path(self, index: int) -> str:
        return f'{self.file}: {self.names[index]}'


def open_archive(source: str | Path) -> Archive:
    """The `.pt` files of a folder, tar or zip.

    Raises:
        UserError: the source is missing, has no such files, is damaged, is of another kind, or is compressed as a
            whole, so that a file can only be read after all files before it.
    """
    source = Path(source)
    archive = FolderArchive(source) if source.is_dir() else _open_file(source)
    if not archive.names:
        raise UserError(
            f'{source} holds no {SUFFIX} files: give the score maps of the release, as class/image{SUFFIX}.'
        )
    if len(set(archive.names)) < len(archive.names):
        name, count = Counter(archive.names).most_common(1)[0]
        raise UserError(f'{source} holds {count} maps of the name {name}: pack it anew with one of each.')
    return archive


def stems(archive: Archive) -> list[str]:
    """Names `class/image` of the maps, without suffix and without folders that all of them share."""
    # the common prefix of the first and last name in sorted order is common to all
    first, last = (name.split('/') for name in (min(archive.names), max(archive.names)))
    depth, shared = 1 + min(name.count('/') for name in archive.names), 0
    while shared < depth - 2 and first[shared] == last[shared]:
        shared += 1
    return [name[: -len(SUFFIX)].split('/', shared)[shared] for name in archive.names]


def _open_file(file: Path) -> Archive:
    try:
        with open_regular(file) as opened:
            start = opened.read(8)
            is_zip = start.startswith(b'PK') and zipfile.is_zipfile(opened)
    except OSError as error:
        remedy = 'give a folder, a tar or a zip of score maps'
        raise UserError(f'Cannot read {file} ({error.strerror or error}): {remedy}.') from error
    for magic, compression in COMPRESSIONS.items():
        if start.startswith(magic):
            raise UserError(
                f'{file} is compressed as a whole ({compression}), so its maps can only be read one after the other: '
                f'unpack it with `mkdir FOLDER && tar -xf {file} -C FOLDER` and give the folder.'
            )
    try:
        return ZipArchive(file) if is_zip else TarArchive(file)
    except UserError:
        raise
    except Exception as error:
        # zipfile can raise almost any exception for a damaged directory
        raise UserError(f'{file} is not a tar or zip, or is damaged ({error}): download it again.') from error


def _is_map(name: str, skipped: Skipped) -> bool:
    is_map = name.lower().endswith(SUFFIX)
    hidden = is_map and is_hidden(name)
    if hidden:
        skipped.add('hidden', name)
    return is_map and not hidden


def _read(file: Path, offset: int, size: int) -> bytes:
    if size > MAX_MAP_BYTES:
        raise ValueError(TOO_LARGE)
    with open_regular(file) as opened:
        opened.seek(offset)
        data = opened.read(size)
    if len(data) != size:
        raise ValueError('the file ends before it')
    return data
