"""One walk through folders, and one rule of which files count, for all that reads what lies in a folder or an archive.

Links are followed. Names that begin with a dot, and what operating systems leave in folders, are passed over. Whatever
is passed over is counted and named.
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

# Of images wherever they are looked for, in any case. Of several images in one WebDataset sample the first kind counts.
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff')
# macOS and Synology put copies of images into such folders; the others belong to Windows, QNAP and ext4.
_LEFTOVERS = ('__macosx', '@eadir', '@recycle', '#recycle', '$recycle.bin', 'lost+found', 'thumbs.db', 'desktop.ini')
_MAX_VISITS = 1000  # of one folder: links between folders can lead to it in numbers that double with each level
_logger = logging.getLogger(__name__)
_said: set[str] = set()


class Skipped:
    """What is passed over, by reason: how many, and the first by name. True if anything is.

    Attributes:
        counts: reason -> how many, and the first by name.
    """

    def __init__(self, counts: Mapping[str, tuple[int, str]] | None = None) -> None:
        self.counts = dict(counts or {})

    def add(self, reason: str, name: str, count: int = 1) -> None:
        """Count a file or folder."""
        before, first = self.counts.get(reason, (0, name))
        self.counts[reason] = before + count, min(first, name)

    def update(self, others: 'Skipped', folder: str = '') -> None:
        """Add the counts of others, whose names lie below a folder."""
        for reason, (count, first) in others.counts.items():
            self.add(reason, f'{folder}/{first}' if folder else first, count)

    def __bool__(self) -> bool:
        return bool(self.counts)

    def __str__(self) -> str:
        return ', '.join(f'{count} {reason} (such as {first})' for reason, (count, first) in self.counts.items())


class Found(NamedTuple):
    """What a walk has found.

    Attributes:
        names: posix paths of the files below the root, in natural order.
        folders: those that were looked into, but for the root.
        skipped: what was passed over.
    """

    names: list[str]
    folders: list[str]
    skipped: Skipped

    def empty_folders(self) -> list[str]:
        """Folders with no file that counts in them or below, in natural order, the topmost of each branch."""
        holding = {''}
        for name in self.names:
            while (name := name.rpartition('/')[0]) and name not in holding:
                holding.add(name)
        empty = [name for name in self.folders if name not in holding and name.rpartition('/')[0] in holding]
        return sorted(empty, key=natural_key)


def find_files(root: str | Path, suffixes: Sequence[str], without: Iterable[str | Path] = ()) -> Found:
    """The regular files of some kinds in a folder and all folders below it.

    Args:
        root: the folder.
        suffixes: how their names end, in any case.
        without: folders to pass over, wherever they are met.

    Raises:
        UserError: a folder that cannot be read (its files must not go missing unnoticed), or one that links lead to so
            often that there would be no end.
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
            found.skipped.add('links that lead back to a folder above them', folder)
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
                found.skipped.add('that are no regular files', place)
    found.names.sort(key=natural_key)
    return found


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name, or any part of this posix path, is to be passed over."""
    parts = (part for part in name.split('/') if part not in ('.', '..'))  # these are ways, not names
    return any(part.startswith('.') or part.lower() in _LEFTOVERS for part in parts)


def report_skipped(source: str | Path, count: int, skipped: Skipped, what: str = 'images') -> None:
    """Log what was passed over in a folder or archive, if anything was; each line once in a process."""
    if skipped:
        report(f'{source}: {count} {what}; passed over are {skipped}.')


def report(line: str) -> None:
    """Log a line once in a process, and in the first process alone."""
    line = printable(line)
    if line not in _said and os.environ.get('RANK', '0') == '0':
        _said.add(line)
        _logger.warning(line)


def natural_key(name: str) -> tuple:
    """Sorts `a2` before `a10`, without regard to case but for names that differ in nothing else.

    Where timm's key of this name is defined and does not tie, the order is the same: it numbers classes.
    """
    return [int(part) if odd % 2 else part for odd, part in enumerate(re.split(r'(\d+)', name.lower()))], name


def _entries(path: str) -> list[tuple[str, str]]:
    """Names in a folder, each with what it is: folder, file, broken link or something else."""
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
