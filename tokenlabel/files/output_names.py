"""Names of output files: the path of the image with another suffix, unique for each image."""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence

MAX_BYTES = 255  # longest file name on nearly every file system


def output_names(names: Sequence[str], suffix: str) -> list[str]:
    """Output path of each image, relative to the output folder.

    `a/b.jpg` becomes `a/b.png`. If two images would get the same name, such as `a/b.jpg` and `a/b.tif`, both keep their
    own suffix: `a/b.jpg.png`. The same holds for names that differ only in case, because some file systems ignore it,
    and for the name of a folder. If that name is taken too, a number is appended. Names that are too long are cut and
    end with a digest.

    Args:
        names: distinct paths of the images, with `/`.
        suffix: of the output files, with its dot.
    """
    taken = {folder.casefold() for name in names for folder in _folders(name)}
    short = [output_name(name, suffix) for name in names]
    counts = Counter(name.casefold() for name in short)
    alone = [counts[name.casefold()] == 1 and name.casefold() not in taken for name in short]
    taken |= {name.casefold() for name, is_alone in zip(short, alone, strict=True) if is_alone}
    written = []
    for name, shortest, is_alone in zip(names, short, alone, strict=True):
        candidate, number = shortest if is_alone else _fitting(name, suffix), 1
        while not is_alone and candidate.casefold() in taken:
            number += 1
            candidate = _fitting(f'{name}~{number}', suffix)
        taken.add(candidate.casefold())
        written.append(candidate)
    return written


def output_name(name: str, suffix: str) -> str:
    """As `output_names`, for an image whose name without suffix is unique."""
    return _fitting(os.path.splitext(name)[0], suffix)


def _folders(name: str) -> list[str]:
    parts = name.split('/')
    return ['/'.join(parts[:depth]) for depth in range(1, len(parts))]


def _fitting(stem: str, suffix: str) -> str:
    folder, slash, base = stem.rpartition('/')
    encoded = os.fsencode(base)
    if len(encoded) + len(suffix) > MAX_BYTES:
        digest = f'~{hashlib.sha256(encoded).hexdigest()[:12]}'
        base = encoded[: MAX_BYTES - len(digest) - len(suffix)].decode('utf-8', 'ignore') + digest
    return f'{folder}{slash}{base}{suffix}'
