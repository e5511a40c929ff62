"""The exception for images that cannot be read, and the messages that all commands print for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tokenlabel.errors import UserError
from tokenlabel.files.reading import explained


class UnreadableImage(OSError):
    """An image that cannot be read. The message is the reason in a few words, without the name of the file.

    Attributes:
        remedy: what to do.
    """

    def __init__(self, reason: str, remedy: str = 'replace or remove it') -> None:
        super().__init__(reason)
        self.remedy = remedy


def because(error: OSError) -> str:
    """Reason and remedy as `(reason): remedy`, to append to `FILE cannot be read`."""
    return f'({error}): {error.remedy}' if isinstance(error, UnreadableImage) else explained(error)


@contextmanager
def named(path: str | Path) -> Iterator[None]:
    """Converts an error of reading an image within the block to a `UserError` that names the file."""
    try:
        yield
    except OSError as error:
        raise UserError(f'{path} cannot be read as an image {because(error)}.') from error
