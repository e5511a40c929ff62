"""Finds files in a folder and its subfolders. The same rules decide which members of an archive are used.

Links are followed. Hidden files (names that begin with a dot, and files that operating systems create) are skipped.
Skipped files are counted by reason and reported.
"""

import errno
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tokenlabel.errors import UserError
from tokenlabel.files.reading import explained, printable

# Case-insensitive. If a WebDataset sample has several images, the one whose suffix comes first here is used.
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff')
# The first two can contain copies of images (macOS, Synology); the others are from QNAP, Windows and ext4.
_LEFTOVERS = ('__macosx', '@eadir', '@recycle', '#recycle', '$recycle.bin', 'lost+found', 'thumbs.db', 'desktop.ini')
_MAX_VISITS = 1000  # per folder: the number of paths to it through links can double with each level
_logger = logging.getLogger(__name__)
_said: set[str] = set()


class Skipped:
    """Counts of skipped files and folders by reason. True if there are any.

    Attributes:
        counts: reason -> (count, first name in alphabetical order).
    """

    def __init__(self, counts: Mapping[str, tuple[int, str]] | None = None) -> None:
        self.counts = dict(counts or {})

    def add(self, reason: str, name: str, count: int = 1) -> None:
        """Counts a file or folder, or `count` of them."""
        before, first = self.counts.get(reason, (0, name))
        self.counts[reason] = before + count, min(first, name)

    def update(self, others: 'Skipped', folder: str = '') -> None:
        """Adds the counts of `others`; their names are relative to `folder`."""
        for reason, (count, first) in others.counts.items():
            self.add(reason, f'{folder}/{first}' if folder else first, count)

    def __bool__(self) -> bool:
        return bool(self.counts)

    def __str__(self) -> str:
        return ', '.join(f'{count} {reason} (such as {first})' for reason, (count, first) in self.counts.items())


class Found(NamedTuple):
    """Result of `find_files`.

    Attributes:
        names: paths of the files relative to the root, with `/`, in natural order.
        folders: paths of the subfolders that were searched.
        skipped: skipped files and folders.
    """

    names: list[str]
    folders: list[str]
    skipped: Skipped

    def empty_folders(self) -> list[str]:
        """Folders without any found file in them or below, in natural order; only the topmost of nested ones."""
        holding = {''}
        for name in self.names:
            while (name := name.rpartition('/')[0]) and name not in holding:
                holding.add(name)
        empty = [name for name in self.folders if name not in holding and name.rpartition('/')[0] in holding]
        return sorted(empty, key=natural_key)


def find_files(root: str | Path, suffixes: Sequence[str], without: Iterable[str | Path] = ()) -> Found:
    """Regular files with certain suffixes in a folder and its subfolders.

    Args:
        root: the folder.
        suffixes: of the files, case-insensitive.
        without: folders to skip, also if they are reached through a link.

    Raises:
        UserError: a folder cannot be read (its files would go missing unnoticed), or more than 1000 links lead to it.
    """
    suffixes = tuple(suffix.lower() for suffix in suffixes)
    excluded = {_identity(os.stat(folder)) for folder in without if os.path.isdir(folder)}
    found = Found([], [], Skipped())
    visits: Counter[tuple[int, int]] = Counter()
    pending: list[tuple[str, tuple]] = [('', ())]
    while pending:
        folder, above = pending.pop()
        path = os.path.join(root, folder) if folder else str(root)
        try:
            here = _identity(os.stat(path))
            entries = [] if here in above or here in excluded else _entries(path)
        except OSError as error:
            raise UserError(f'The folder {printable(path)} cannot be read {explained(error)}.') from error
        visits[here] += 1
        if here in above:
            found.skipped.add('links to a parent folder', folder)
        elif here in excluded:
            found.skipped.add('folders of results', folder)
        elif visits[here] > _MAX_VISITS:
            raise UserError(f'More than {_MAX_VISITS} links lead to the folder {printable(path)}: remove some of them.')
        elif folder:
            found.folders.append(folder)
        for name, kind in entries:
            place = f'{folder}/{name}' if folder else name
            counts = name.lower().endswith(suffixes)
            if is_hidden(name):
                if counts or kind == 'folder':
                    found.skipped.add('hidden', place)
            elif kind == 'folder':
                pending.append((place, (*above, here)))
            elif kind == 'broken link':
                found.skipped.add('broken links', place)
            elif not counts:
                found.skipped.add('of other kinds', place)
            elif kind == 'file':
                found.names.append(place)
            else:
                found.skipped.add('not regular files', place)
    found.names.sort(key=natural_key)
    return found


def is_hidden(name: str) -> bool:
    """Whether a name, or a part of a path with `/`, begins with a dot or is that of a file of an operating system."""
    parts = (part for part in name.split('/') if part not in ('.', '..'))
    return any(part.startswith('.') or part.lower() in _LEFTOVERS for part in parts)


def report_skipped(source: str | Path, count: int, skipped: Skipped, what: str = 'images') -> None:
    """Logs what was skipped in a folder or archive, if anything, as `report`."""
    if skipped:
        report(f'{source}: {count} {what}; skipped {skipped}.')


def report(line: str) -> None:
    """Logs a warning once, on rank 0 only."""
    line = printable(line)
    if line not in _said and os.environ.get('RANK', '0') == '0':
        _said.add(line)
        _logger.warning(line)


def natural_key(name: str) -> tuple:
    """Sort key that puts `a2` before `a10` and ignores case, except between names that differ only in case.

    The order agrees with timm's `natural_key` wherever that is defined and has no ties, so classes get the same ids.
    """
    return [int(part) if odd % 2 else part for odd, part in enumerate(re.split(r'(\d+)', name.lower()))], name


def _entries(path: str) -> list[tuple[str, str]]:
    """Names in a folder and the kind of each: folder, file, broken link or something else."""
    with os.scandir(path) as entries:
        return [(entry.name, _kind(entry)) for entry in entries]


def _kind(entry: os.DirEntry) -> str:
    try:
        if entry.is_dir():
            return 'folder'
        if entry.is_file():
            return 'file'
        entry.stat()
    except OSError as error:
        if entry.is_symlink() and error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
            return 'broken link'
        raise
    return 'something else'


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
