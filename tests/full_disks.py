"""A disk that takes no more than some bytes a file, without a disk: the limit of file sizes."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def full_disk(largest: int = 0) -> Iterator[None]:
    """Meanwhile a write beyond `largest` bytes of a file fails, as `File too large`; Python ignores the signal."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
