"""File backend for MMSegmentation's own data sets, with this package's rules for finding and reading files."""

from collections.abc import Iterator
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from tokenlabel.files.folder_walk import find_files, report_skipped
from tokenlabel.files.reading import open_regular, read_text


class LocalFiles(LocalBackend):
    """MMEngine's backend for local files, which lists folders by `tokenlabel.files.folder_walk`.

    MMEngine's own backend searches hidden folders, loops on circular links, does not treat `.JPG` as `.jpg` and blocks
    on pipes.
    """

    def get(self, filepath: str | Path) -> bytes:
        """Contents of a regular file."""
        with open_regular(filepath) as file:
            return file.read()

    def get_text(self, filepath: str | Path, encoding: str = 'utf-8') -> str:
        """Text of a file such as a list of images, without a final line break.

        Raises:
            UserError: the file cannot be read or is not UTF-8.
        """
        if encoding.lower() not in ('utf-8', 'utf8'):
            return super().get_text(filepath, encoding)
        return read_text(filepath, errors='surrogateescape').rstrip()

    def list_dir_or_file(
        self,
        dir_path: str | Path,
        list_dir: bool = True,
        list_file: bool = True,
        suffix: str | tuple[str, ...] | None = None,
        recursive: bool = False,
    ) -> Iterator[str]:
        """Files with a suffix below a folder, as relative paths in natural order; MMEngine handles all other calls.

        Raises:
            UserError: a folder cannot be read.
        """
        if list_dir or not list_file or not recursive or suffix is None:
            yield from super().list_dir_or_file(dir_path, list_dir, list_file, suffix, recursive)
            return
        found = find_files(dir_path, (suffix,) if isinstance(suffix, str) else suffix)
        report_skipped(dir_path, len(found.names), found.skipped, 'files')
        yield from found.names


register_backend('local', LocalFiles, force=True, prefixes='')
