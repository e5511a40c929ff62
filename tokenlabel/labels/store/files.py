"""The array files of a label store: names, dtypes and shapes, and reading by memory map."""

import hashlib
import math
import mmap
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tokenlabel.errors import UserError
from tokenlabel.files.reading import explained, open_regular

ARRAYS = ('scores', 'classes', 'sizes')
# dtype and shape of an array; a dtype of length 0, such as `S`, matches any length, and a size None any size
Layout = tuple[np.dtype, tuple[int | None, ...]]
MAGIC = b'\x93NUMPY\1\0'  # and the format, 1.0
HEADER = re.compile(
    rb"\{'descr': '([<>|=\w\[\]]{1,12})', 'fortran_order': False, 'shape': \(((?:\d{1,18},? ?)*)\), \} *\n"
)
RESTORE = 'restore it from a copy, or make the store again'
RESUME = 'make room or choose another folder, then run again to resume'  # after disk errors


def num_shards(meta: dict) -> int:
    """Number of shards of a store."""
    return -(-meta['num_images'] // meta['images_per_shard'])


def shard_size(meta: dict, shard: int) -> int:
    """Number of images in a shard; all shards but the last have the same size."""
    return min(meta['images_per_shard'], meta['num_images'] - shard * meta['images_per_shard'])


def layout(meta: dict, name: str, shard: int) -> Layout:
    """Type and shape of one array of a shard; little-endian on every machine."""
    size = shard_size(meta, shard)
    if name == 'sizes':
        return np.dtype('<u4'), (size, 2)
    shape = size, meta['k'], *meta['grid']
    if name == 'scores':
        return np.dtype('<f2'), shape
    return np.dtype('<u2' if meta['num_classes'] <= 2**16 else '<u4'), shape


def file_name(name: str, shard: int) -> str:
    """File of one array of a shard."""
    return f'{name}-{shard:05d}.npy'


def file_names(meta: dict) -> Iterator[str]:
    """All files of a store but `meta.json`."""
    yield 'keys.npy'
    yield from (file_name(name, shard) for name in ARRAYS for shard in range(num_shards(meta)))


def check_arrays(path: Path, meta: dict, shards: Iterable[int] | None = None) -> None:
    """Checks headers and lengths of a store's files of scores, classes and image sizes, without reading a map.

    Args:
        path: the store.
        meta: its `meta.json`.
        shards: shards to check; None checks all.

    Raises:
        UserError: a file is missing, cannot be read, or is of another type, shape or length.
    """
    for shard in range(num_shards(meta)) if shards is None else shards:
        for name in ARRAYS:
            with _opened(path / file_name(name, shard), layout(meta, name, shard)):
                pass


def map_array(path: Path, expected: Layout, scattered: bool = False) -> np.ndarray:
    """A `.npy` file as a read-only array over its memory map.

    Args:
        path: the file.
        expected: its type and shape.
        scattered: rows will be read in random order, so disable read-ahead.

    Raises:
        UserError: as `check_arrays`.
    """
    with _opened(path, expected) as (file, (dtype, shape), begin):
        try:
            memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise UserError(f'{path} cannot be read {explained(error)}.') from error
        if scattered:
            memory.madvise(mmap.MADV_RANDOM)
        # A plain array over the memory map: indexing an np.memmap is several times slower.
        return np.ndarray(shape, dtype, memory, begin)


def file_digest(path: Path) -> str:
    """SHA-256 of a file in hexadecimal. Raises `OSError` where it cannot be read."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


@contextmanager
def _opened(path: Path, expected: Layout) -> Iterator[tuple[BinaryIO, Layout, int]]:
    """A `.npy` file, its dtype and shape, and the offset of its values in bytes. Checks header and length: reading
    beyond the end of a memory-mapped file would kill the process."""
    try:
        file = open_regular(path)
    except FileNotFoundError as error:
        raise UserError(f'{path} is missing: the label store is damaged.') from error
    except OSError as error:
        raise UserError(f'{path} cannot be read {explained(error)}.') from error
    with file:
        there = dtype, shape = _header(path, file)
        if not _fits(there, expected):
            raise UserError(
                f'{path} is damaged: {dtype} {shape}, where {expected[0]} {expected[1]} belongs; {RESTORE}.'
            )
        length = file.tell() + math.prod(shape) * dtype.itemsize
        size = os.fstat(file.fileno()).st_size
        if size != length:
            raise UserError(f'{path} is damaged: it has {size} bytes, where {length} belong; {RESTORE}.')
        yield file, there, file.tell()


def _header(path: Path, file: BinaryIO) -> Layout:
    """Dtype and shape from a file's header; leaves the file position behind it. NumPy evaluates the header as Python,
    which is slow and can raise almost any exception if the header is damaged."""
    try:
        start = file.read(10)
        match = HEADER.fullmatch(file.read(int.from_bytes(start[8:], 'little')))
    except OSError as error:
        raise UserError(f'{path} cannot be read {explained(error)}.') from error
    if start[:8] != MAGIC or match is None:
        raise UserError(f'{path} is damaged (its header is not one of a label store): {RESTORE}.')
    try:
        return np.dtype(match[1].decode()), tuple(map(int, re.findall(rb'\d+', match[2])))
    except (TypeError, ValueError) as error:
        raise UserError(f'{path} is damaged (its dtype does not exist): {RESTORE}.') from error


def _fits(there: Layout, expected: Layout) -> bool:
    (dtype, shape), (expected_dtype, sizes) = there, expected
    fits = (
        dtype == expected_dtype if expected_dtype.itemsize else dtype.kind == expected_dtype.kind and dtype.itemsize > 0
    )
    return fits and len(shape) == len(sizes) and all(b in (None, a) for a, b in zip(shape, sizes, strict=True))
