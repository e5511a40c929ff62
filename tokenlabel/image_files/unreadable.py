"""Why an image cannot be read, said once for all commands."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tokenlabel.errors import UserError
from tokenlabel.files.reading import explained


class UnreadableImage(OSError):
    """What is wrong with an image, in a few words.

    Attributes:
        remedy: what to do.
    """

    def __init__(self, reason: str, remedy: str = 'replace or remove it') -> None:
        super().__init__(reason)
        self.remedy = remedy


def because(error: OSError) -> str:
    """`(reason): remedy`, to follow the name of a file that cannot be read."""
    return f'({error}): {error.remedy}' if isinstance(error, UnreadableImage) else explained(error)


@contextmanager
def named(path: str | Path) -> Iterator[None]:
    """Turns what is wrong with an image that is read inside into a `UserError` that names it."""
    try:
        yield
    except OSError as error:
        raise UserError(f'{path} cannot be read as an image {because(error)}.') from error
