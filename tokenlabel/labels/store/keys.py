"""The image keys of a label store: unique names, sorted by their UTF-8 bytes."""

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tokenlabel.errors import UserError


class Names(Sequence[str]):
    """Names in one array of UTF-8 bytes.

    Millions of str objects would be copied into every loader worker little by little, as their reference counts change.

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
    """The image keys of a store, sorted; looked up by binary search in the (memory-mapped) file."""

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and bool(self.rows([key])[0] >= 0)

    def rows(self, keys: Iterable[str]) -> np.ndarray:
        """Position of each key, int64; -1 where it is not in the store."""
        width = self.encoded.dtype.itemsize
        encoded = [_encode(key) for key in keys]
        # A longer key than the longest in the store is in none; the empty key, which no store holds, stands for it.
        queries = np.array([key if len(key) <= width else b'' for key in encoded], dtype=self.encoded.dtype)
        rows = np.minimum(np.searchsorted(self.encoded, queries), len(self) - 1)
        return np.where(self.encoded[rows] == queries, rows, -1).astype(np.int64)


def image_keys(reader: Any) -> list[str]:
    """Keys of a timm reader's images: their posix paths below the image folder."""
    return [os.path.normpath(name).replace(os.sep, '/') for name in reader.filenames()]


def encode_keys(keys: Sequence[str]) -> np.ndarray:
    """Keys as a zero-padded UTF-8 array [n] in the same order; its sorting is that of the store.

    Raises:
        UserError: no keys, an empty key or a key that occurs twice.
    """
    if not len(keys):
        raise UserError('No images to annotate.')
    encoded = Names.of(keys).encoded
    ordered = np.sort(encoded)
    twice = np.flatnonzero(ordered[1:] == ordered[:-1])
    if len(twice):
        raise UserError(f'Image {decode_key(ordered[twice[0]])} is listed twice.')
    if not ordered[0]:
        raise UserError('An image has no name.')
    return encoded


def decode_key(key: bytes) -> str:
    """The name whose bytes these are."""
    return key.decode('utf-8', 'surrogateescape')


def _encode(key: str) -> bytes:
    # Names that are not UTF-8 reach Python as lone surrogates.
    return key.encode('utf-8', 'surrogateescape')
