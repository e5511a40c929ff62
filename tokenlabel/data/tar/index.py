"""Index of the images and labels in a tar, from its headers."""

import json
import os
import posixpath
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tokenlabel.errors import UserError
from tokenlabel.files.folder_walk import Skipped, is_hidden
from tokenlabel.files.reading import explained, open_regular, relative_name
from tokenlabel.files.tar_members import Link, Member, entries

LABEL_SUFFIXES = ('.cls', '.json')
_MAX_LABEL = 2**24  # bytes of a file with a label
_MAX_LABEL_TEXT = 1000  # characters


class TarIndex(NamedTuple):
    """The images of one tar, in the order of the archive.

    Attributes:
        names: posix path of each image below the tar.
        offsets, sizes: of each image in the file, in bytes.
        labels: key -> label from `key.cls`, or from `label` in `key.json`, as WebDataset pairs them with `key.jpg`.
        skipped: files that were skipped.
    """

    names: list[str]
    offsets: list[int]
    sizes: list[int]
    labels: dict[str, str]
    skipped: Skipped

    def add(self, name: str, offset: int, size: int) -> None:
        """Add an image."""
        self.names.append(name)
        self.offsets.append(offset)
        self.sizes.append(size)


def index_tar(path: Path, suffixes: Collection[str]) -> TarIndex:
    """Finds the images of a tar by its headers and reads its labels; other contents are not read.

    Args:
        path: the file, not compressed.
        suffixes: image suffixes in lower case with their dot.

    Raises:
        UserError: the file is missing, compressed or damaged, or holds tars, an unreadable label or a name that leads
            out of the tar.
    """
    index = TarIndex([], [], [], {}, Skipped())
    try:
        with open_regular(path) as file:
            _Reading(path, file, index, suffixes).read()
    except OSError as error:
        raise UserError(f'{path} cannot be read {explained(error)}.') from error
    except UserError:
        raise
    except ValueError as error:
        raise UserError(
            f'{path} cannot be read as a tar ({error}): fetch it again if it is cut off, and unpack it to a plain '
            '.tar if it is compressed.'
        ) from error
    return index


def sample_key(name: str) -> str:
    """WebDataset's key of a member: its path up to the first dot of the file name."""
    folder, _, file = name.rpartition('/')
    return f'{folder}/{file.partition(".")[0]}' if folder else file.partition('.')[0]


class _Reading:
    """One reading of a tar, into its index."""

    def __init__(self, path: Path, file: BinaryIO, index: TarIndex, suffixes: Collection[str]) -> None:
        self.path, self.file, self.index, self.suffixes = path, file, index, suffixes
        self.links: list[tuple[str, str]] = []
        self.labels_with_dots: list[tuple[str, Member]] = []

    def read(self) -> None:
        """Reads the whole tar."""
        for entry in entries(self.file):
            self._add(entry)
        if self.links:
            self._add_links()
        stems = {posixpath.splitext(name)[0] for name in self.index.names} if self.labels_with_dots else ()
        for key, label in self.labels_with_dots:
            if key in stems:
                self._add_label(key, label)

    def _add(self, entry: Member | Link) -> None:
        suffix = posixpath.splitext(entry.name)[1].lower()
        is_image, is_label = suffix in self.suffixes, suffix in LABEL_SUFFIXES
        if not is_image and not is_label and suffix != '.tar':
            if isinstance(entry, Member) and not is_hidden(entry.name):
                self.index.skipped.add('of other kinds', entry.name)
            return
        name = relative_name(entry.name, self.path)
        if is_hidden(name):
            self.index.skipped.add('hidden', name)
        elif isinstance(entry, Link):
            if is_image:
                self.links.append((name, _target(entry)))
        elif is_image:
            self.index.add(name, entry.offset, entry.size)
        elif is_label:
            key, label = posixpath.splitext(name)[0], entry._replace(name=name)
            if key == sample_key(name):
                self._add_label(key, label)
            else:
                self.labels_with_dots.append((key, label))
        else:
            raise UserError(
                f'{self.path} holds tars, such as {name}: unpack it once (tar -xf {self.path.name} -C FOLDER) and name '
                'the folder, in which each tar is a class.'
            )

    def _add_links(self) -> None:
        """Adds the targets of links as images under the links' names."""
        places = dict(zip(self.index.names, zip(self.index.offsets, self.index.sizes, strict=True), strict=True))
        for name, target in self.links:
            if target in places:
                self.index.add(name, *places[target])
            else:
                self.index.skipped.add('links to what is not there', name)

    def _add_label(self, key: str, label: Member) -> None:
        suffix = posixpath.splitext(label.name)[1].lower()
        if label.size > _MAX_LABEL:
            raise ValueError(f'its label {label.name} has {label.size} bytes')
        text = _label(os.pread(self.file.fileno(), label.size, label.offset), suffix, label.name)
        if text is not None and (suffix == '.cls' or key not in self.index.labels):
            self.index.labels[key] = text


def _target(link: Link) -> str:
    """The normalised name of a link's target."""
    base = posixpath.dirname(link.name) if link.is_symbolic else ''
    return posixpath.normpath(posixpath.join(base, link.target))


def _label(content: bytes, suffix: str, name: str) -> str | None:
    try:
        if suffix == '.cls':
            label = content.decode('utf-8-sig').strip()
        else:
            record = json.loads(content)
            label = record.get('label', record.get('cls')) if isinstance(record, dict) else None
    except (ValueError, RecursionError) as error:
        raise ValueError(f'its label {name} is damaged, {error}') from error
    if not isinstance(label, int | str) or isinstance(label, bool):
        return None
    label = str(label)
    if len(label) > _MAX_LABEL_TEXT:
        raise ValueError(f'its label {name} has {len(label)} characters')
    return label
