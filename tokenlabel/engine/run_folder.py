"""Writing to the work dir of a run, on a disk that may be full or read-only."""

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tokenlabel.errors import UserError

DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@contextmanager
def folder_errors(folder: str | Path) -> Iterator[None]:
    """Turns disk errors in and above a work dir into one sentence.

    Raises:
        UserError: the disk is full or the folder is not writable.
    """
    try:
        yield
    except OSError as error:
        folder, file = Path(folder).absolute(), error.filename
        place = Path(file).absolute() if isinstance(file, str | Path) else None
        is_work_dir = place is not None and (place.is_relative_to(folder) or folder.is_relative_to(place))
        if not is_work_dir and (place is not None or error.errno not in DISK_IS_FULL):
            raise
        raise UserError(
            f'Cannot write to {place or folder} ({error.strerror}): make room or choose another folder with '
            '--work-dir; resume an interrupted run with --resume.'
        ) from error


def raise_in_log_files(logger: logging.Logger) -> None:
    """Makes the file handlers of a logger raise errors instead of printing a traceback for every line."""
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handleError = _raise


def _raise(record: logging.LogRecord) -> None:
    raise
