"""Cache of tar indices in the user's cache folder: reading a million headers takes half a minute."""

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

FORMAT = 1  # increase when the index of an unchanged tar would change
LEAST = 1000  # images; smaller tars are not worth caching


def cached_index(path: Path, suffixes: Collection[str]) -> TarIndex:
    """As `index_tar`, from the cache `$XDG_CACHE_HOME/tokenlabel/tars` if the tar has not changed.

    If the cache cannot be read or written, the tar is read instead.
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
    """Cache file of a tar, named by its path, size and modification time; None if the tar is missing."""
    try:
        status = path.stat()
        folder = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    except (OSError, RuntimeError):
        return None
    about = [FORMAT, os.fspath(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ino, *sorted(suffixes)]
    return folder / 'tokenlabel/tars' / f'{hashlib.sha256(repr(about).encode()).hexdigest()[:32]}.npz'


def _packed(index: TarIndex) -> bytes:
    """An npz file: zero-terminated names, offsets and sizes, and the rest as JSON."""
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
    with np.load(file, allow_pickle=False) as packed:  # checks the zip's checksums
        names = packed['names'].tobytes().decode('utf-8', 'surrogateescape').split('\0')[:-1]
        offsets, sizes = packed['places'].tolist()
        about = json.loads(packed['about'].tobytes())
    if not len(names) == len(offsets) == len(sizes):
        raise ValueError(f'{file} is damaged')
    return TarIndex(names, offsets, sizes, about['labels'], Skipped(about['skipped']))
