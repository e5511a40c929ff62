"""How MMSegmentation's own data sets find and read files: by the same rules as everything else here."""

from collections.abc import Iterator
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from tokenlabel.files.folder_walk import find_files, report_skipped
from tokenlabel.files.reading import open_regular, read_text


class LocalFiles(LocalBackend):
    """MMEngine's backend for local files, which lists folders by `tokenlabel.files.folder_walk`.

    MMEngine's own looks into hidden folders, goes round in circles of links, does not see `.JPG` as `.jpg` and waits
    for pipes.
    """

    def get(self, filepath: str | Path) -> bytes:
        """Contents of a regular file."""
        with open_regular(filepath) as file:
            return file.read()

    def get_text(self, filepath: str | Path, encoding: str = 'utf-8') -> str:
        """Text as people's editors write it, such as a list of images; nothing follows its last line.

        Raises:
            UserError: it cannot be read, or is no UTF-8.
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
        """Files of a suffix below a folder, as paths relative to it in natural order; other lists are MMEngine's.

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
