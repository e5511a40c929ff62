"""Names for what is written per image: the image's own path with another suffix, and never one name for two images."""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence

MAX_BYTES = 255  # of a file's name, on nearly every file system


def output_names(names: Sequence[str], suffix: str) -> list[str]:
    """Where below a folder something of each image goes.

    `a/b.jpg` becomes `a/b.png`. Where that would be the name of two, because `a/b.tif` or `a/B.jpg` is there (file
    systems may not tell cases apart), or of a folder, both keep their own suffix: `a/b.jpg.png`. A number follows where
    even that is taken, and names that are too long are cut and end with a digest.

    Args:
        names: posix paths of the images, each once.
        suffix: of what is written, with its dot.
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
    """As `output_names`, of an image that shares its name without suffix with no other."""
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
