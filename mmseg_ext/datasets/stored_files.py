"""Opens files of MMSegmentation's data sets, local ones or through MMEngine's file backends."""

import io
from pathlib import Path
from typing import BinaryIO

import mmengine.fileio
from mmengine.fileio import LocalBackend

from tokenlabel.files.reading import open_regular
from tokenlabel.image_files.unreadable import UnreadableImage


def open_stored(path: str | Path, backend_args: dict | None = None) -> BinaryIO:
    """Opens a file for reading. A local file must be a regular one, so that opening never blocks.

    Args:
        path: path or URI of the file.
        backend_args: file backend, as MMEngine configures it.

    Raises:
        OSError: it is missing or cannot be read.
    """
    backend = mmengine.fileio.get_file_backend(path, backend_args=backend_args, enable_singleton=True)
    if isinstance(backend, LocalBackend):
        return open_regular(path)
    try:
        return io.BytesIO(backend.get(path))
    except OSError:
        raise
    except Exception as error:  # clients of remote storage raise errors of many kinds
        raise UnreadableImage(str(error) or type(error).__name__, 'check the path and `backend_args`') from error
