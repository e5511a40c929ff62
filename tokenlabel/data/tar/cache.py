"""Indices of tars that were read before, in the user's cache folder: a million headers take half a minute."""

import contextlib
import hashlib
import json
import os
import zipfile
from collections.abc import Collection
from io import BytesIO
from pathlib import Path

import numpy as np

from tokenlabel.data.tar.index import TarIndex, index_tar
from tokenlabel.errors import UserError
from tokenlabel.files.folder_walk import Skipped
from tokenlabel.files.writing import write_atomically

FORMAT = 1  # raised whenever the same tar would get another index
LEAST = 1000  # images; smaller tars are read as fast


def cached_index(path: Path, suffixes: Collection[str]) -> TarIndex:
    """As `index_tar`, from the cache where the file has not changed since: `$XDG_CACHE_HOME/tokenlabel/tars`.

    A cache that cannot be read or written costs time and nothing else.
    """
    file = _place(path, suffixes)
    if file is not None:
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, zipfile.BadZipFile):
            return _read(file)
    index = index_tar(path, suffixes)
    if file is not None and len(index.names) >= LEAST:
        with contextlib.suppress(OSError, UserError):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, _packed(index))
    return index


def _place(path: Path, suffixes: Collection[str]) -> Path | None:
    """Where the index of a tar belongs, by its path, size and time of change; None where there is no such tar."""
    try:
        status = path.stat()
        folder = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    except (OSError, RuntimeError):
        return None
    about = [FORMAT, os.fspath(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ino, *sorted(suffixes)]
    return folder / 'tokenlabel/tars' / f'{hashlib.sha256(repr(about).encode()).hexdigest()[:32]}.npz'


def _packed(index: TarIndex) -> bytes:
    """An npz file: names behind each other, each ended by a zero byte, places, and the rest as JSON."""
    about = json.dumps({'labels': index.labels, 'skipped': index.skipped.counts}).encode()
    names = ''.join(f'{name}\0' for name in index.names).encode('utf-8', 'surrogateescape')
    buffer = BytesIO()
    np.savez(
        buffer,
        names=np.frombuffer(names, np.uint8),
        places=np.array([index.offsets, index.sizes], np.int64),
        about=np.frombuffer(about, np.uint8),
    )
    return buffer.getvalue()


def _read(file: Path) -> TarIndex:
    with np.load(file, allow_pickle=False) as packed:  # which checks the zip's checksums
        names = packed['names'].tobytes().decode('utf-8', 'surrogateescape').split('\0')[:-1]
        offsets, sizes = packed['places'].tolist()
        about = json.loads(packed['about'].tobytes())
    if not len(names) == len(offsets) == len(sizes):
        raise ValueError(f'{file} is damaged')
    return TarIndex(names, offsets, sizes, about['labels'], Skipped(about['skipped']))
