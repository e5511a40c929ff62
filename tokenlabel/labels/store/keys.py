"""The image keys of a label store: unique names, sorted by their UTF-8 bytes."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tokenlabel.errors import UserError
from tokenlabel.files.reading import relative_name
from tokenlabel.labels.store.files import RESTORE, map_array

CHUNK = 2**14  # keys checked together: their bytes fit into a CPU's cache


class Names(Sequence[str]):
    """Names in one array of UTF-8 bytes.

    Millions of str objects would slowly be copied into every loader worker, because reading changes their reference
    counts.

    Attributes:
        encoded: bytes [n], zero-padded.
    """

    def __init__(self, encoded: np.ndarray) -> None:
        self.encoded = encoded

    @classmethod
    def of(cls, names: Iterable[str]) -> 'Names':
        """From names as str."""
        return cls(np.array([_encode(name) for name in names], dtype='S'))

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [decode_key(key) for key in self.encoded[index]]
        return decode_key(self.encoded[index])


class Keys(Names):
    """The sorted image keys of a store, looked up by binary search in the (memory-mapped) file."""

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and bool(self.rows([key])[0] >= 0)

    def rows(self, keys: Iterable[str]) -> np.ndarray:
        """Position of each key, int64; -1 where it is not in the store."""
        width = self.encoded.dtype.itemsize
        # Keys that are no valid file name, or longer than all keys of the store, are not in it. They become the empty
        # key, which is never in a store.
        encoded = [_query(key) for key in keys]
        queries = np.array([key if len(key) <= width else b'' for key in encoded], dtype=self.encoded.dtype)
        rows = np.minimum(np.searchsorted(self.encoded, queries), len(self) - 1)
        return np.where(self.encoded[rows] == queries, rows, -1).astype(np.int64)


def image_keys(reader: Any) -> list[str]:
    """Keys of a timm reader's images: their posix paths below the image folder."""
    return [os.path.normpath(name).replace(os.sep, '/') for name in reader.filenames()]


def encode_keys(keys: Sequence[str]) -> np.ndarray:
    """Keys as a zero-padded UTF-8 array [n], in the same order; sorting it gives the order of the store.

    Raises:
        UserError: there are no keys, or a key is empty, occurs twice or is not a path below a folder.
    """
    if not len(keys):
        raise UserError('No images to annotate.')
    try:
        encoded = Names.of(keys).encoded
        zero = next((key for key in keys if '\0' in key), None)
    except UnicodeEncodeError as error:
        encoded, zero = None, error.object
    if zero is not None:
        raise UserError(f'The image list names {zero!r}, which no file can be called: rename it.')
    ordered = np.sort(encoded)
    twice = np.flatnonzero(ordered[1:] == ordered[:-1])
    if len(twice):
        raise UserError(f'Image {decode_key(ordered[twice[0]])} is listed twice.')
    if not ordered[0]:
        raise UserError('An image has no name.')
    _check_paths(encoded, 'The image list')
    return encoded


def read_keys(path: Path, meta: dict) -> np.ndarray:
    """The keys of the store at `path`, bytes [n], over their memory-mapped file.

    Raises:
        UserError: the file is missing or cannot be read, or its keys are not sorted, not unique, no paths below a
            folder, or not as many as `meta` says.
    """
    file = path / 'keys.npy'
    encoded = map_array(file, (np.dtype('S'), (None,)))
    if len(encoded) != meta['num_images']:
        raise UserError(f'{file} is damaged: {len(encoded)} keys, not {meta["num_images"]}; {RESTORE}.')
    if not encoded[0]:
        raise UserError(f'{file} has an image without a name: {RESTORE}.')
    for begin in range(0, len(encoded) - 1, CHUNK):
        chunk = encoded[begin : begin + CHUNK + 1]
        disorder = np.flatnonzero(chunk[1:] <= chunk[:-1])
        if len(disorder):
            key = decode_key(chunk[disorder[0] + 1])
            raise UserError(f'{file} is not sorted, or names an image twice: {key}; {RESTORE}.')
    _check_paths(encoded, file)
    return encoded


def decode_key(key: bytes) -> str:
    """The key as str."""
    return key.decode('utf-8', 'surrogateescape')


def _check_paths(encoded: np.ndarray, source: str | Path) -> None:
    """Raises `UserError` if a key is not a normalised path below a folder, because keys may become parts of paths."""
    width = encoded.dtype.itemsize
    for begin in range(0, len(encoded), CHUNK):
        chunk = np.ascontiguousarray(encoded[begin : begin + CHUNK])
        text = np.zeros((len(chunk), width + 2), np.uint8)
        text[:, 0] = ord('/')
        text[:, 1:-1] = chunk.view(np.uint8).reshape(len(chunk), width)
        text = text.ravel()
        after_slashes = text[np.flatnonzero(text == ord('/')) + 1]
        num_letters = int(np.char.str_len(chunk).sum()) + len(chunk)
        # fast check: if no part is empty or begins with a dot, no part is '.' or '..'
        if np.count_nonzero(text) == num_letters and not np.isin(after_slashes, list(b'\0./')).any():
            continue
        for key in map(decode_key, chunk):
            name = relative_name(key, source)
            if name != key:
                raise UserError(
                    f'{source} names {key!r}, which is {name} in normal form: write it anew with such names.'
                )


def _encode(key: str) -> bytes:
    # Names that are not UTF-8 reach Python as lone surrogates.
    return key.encode('utf-8', 'surrogateescape')


def _query(key: str) -> bytes:
    """The bytes of a key to look up; empty if it is not a valid file name."""
    try:
        return b'' if '\0' in key else key.encode('utf-8', 'surrogateescape')
    except UnicodeEncodeError:
        return b''
