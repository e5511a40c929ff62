"""What lies where in tar files, so that any image of theirs can be read at once.

timm reads tars of images too, but keeps an archive open, whose position forked workers would share, and its WebDataset
reader only streams. Here a member is an offset and a length, read by position.
"""

import json
import os
import tarfile
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tokenlabel.errors import UserError

LABEL_SUFFIXES = ('.cls', '.json')


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
        with tarfile.open(path, 'r:') as archive:
            _add(archive, '', 0, index, suffixes)
    except (tarfile.TarError, EOFError) as error:
        raise UserError(
            f'{path} cannot be read as a tar ({error}): fetch it again if it is cut off, and unpack it to a plain '
            '.tar if it is compressed.'
        ) from error
    except OSError as error:
        raise UserError(f'{path} cannot be read ({error.strerror}).') from error
    return index


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
    """Closed once nobody reads it any more."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, 'descriptor'):
            os.close(self.descriptor)


def _add(archive: tarfile.TarFile, folder: str, begin: int, index: TarIndex, suffixes: Collection[str]) -> None:
    """Add the members of an archive that lies at `begin` in the file, as those of `folder`."""
    while (member := archive.next()) is not None:
        archive.members.clear()  # it would remember them all
        if not member.isreg():
            continue
        name = (PurePosixPath(folder) / member.name.lstrip('/')).as_posix()
        suffix = PurePosixPath(name).suffix.lower()
        if suffix in suffixes:
            index.names.append(name)
            index.offsets.append(begin + member.offset_data)
            index.sizes.append(member.size)
        elif suffix == '.tar':
            inner = archive.extractfile(member)
            with tarfile.open(fileobj=inner, mode='r:') as inner_archive:
                _add(inner_archive, name[: -len(suffix)], begin + member.offset_data, index, suffixes)
        elif suffix in LABEL_SUFFIXES and sample_key(name) + suffix == name:
            label = _label(archive.extractfile(member).read(), suffix, f'{archive.name}/{name}')
            key = sample_key(name)
            if label is not None and (suffix == '.cls' or key not in index.labels):
                index.labels[key] = label
    # tarfile takes a header that it cannot read for the end
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE).strip(b'\0'):
        raise tarfile.ReadError(f'no header where one belongs, at byte {begin + archive.offset}')


def _label(content: bytes, suffix: str, where: str) -> str | None:
    try:
        if suffix == '.cls':
            return content.decode().strip()
        record = json.loads(content)
    except ValueError as error:
        raise UserError(f'The label {where} cannot be read ({error}).') from error
    label = record.get('label', record.get('cls')) if isinstance(record, dict) else None
    return str(label) if isinstance(label, int | str) else None
