"""`meta.json`, the record of a label store: its fields, reading and writing.

It holds a checksum of its other fields, and its text is exactly that of `json.dumps`. Any flipped bit therefore makes
it invalid JSON, changes a field, or changes the text only. Stores of earlier versions have no such checksum.
"""

import hashlib
import json
import math
import re
import reprlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tokenlabel.errors import UserError
from tokenlabel.files.reading import explained, open_regular
from tokenlabel.files.writing import write_atomically
from tokenlabel.labels.store.files import RESTORE, file_names
from tokenlabel.labels.view_rule import view_rule

FORMAT = 'tokenlabel label store'
VERSION = 1
CHECKSUM = 'checksum'

MAX_CLASSES = 2**24
MAX_CELLS = 2**15  # of a side
MAX_IMAGES = 2**40
MAX_BYTES = 2**30  # of the file
MAX_NAMED = 8  # files in a message
MAX_LEVELS = 32  # of objects and lists in the annotator's record


@dataclass(frozen=True)
class MetaFile:
    """A store's `meta.json` as it is on disk.

    Attributes:
        meta: its contents, checked, without the checksum.
        has_checksum: whether it has a checksum; if so, it matches `meta`.
        as_written: whether its text is exactly what `write_meta` writes.
    """

    meta: dict[str, Any]
    has_checksum: bool
    as_written: bool

    @classmethod
    def read(cls, path: str | Path) -> 'MetaFile | None':
        """Reads the file of the store at `path`, finished or not; None if missing. Raises as `read_meta`."""
        file = Path(path) / 'meta.json'
        try:
            with open_regular(file) as stream:
                data = stream.read(MAX_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise UserError(f'{file} cannot be read {explained(error)}.') from error
        return cls.parse(file, data)

    @classmethod
    def parse(cls, file: Path, data: bytes) -> 'MetaFile':
        """Parses `data`; `file` is the path for messages. Raises `UserError` as `read_meta`."""
        meta = _parsed(file, data)
        has_checksum, recorded = CHECKSUM in meta, meta.pop(CHECKSUM, None)
        _check(file, meta)
        checksum = _digest(meta) if has_checksum else None
        if recorded != checksum:
            raise UserError(f'{file} has changed since it was written, as its checksum differs: {RESTORE}.')
        return cls(meta, has_checksum, data == _text(meta, checksum))


def read_meta(path: str | Path) -> dict[str, Any] | None:
    """Contents of a store's `meta.json`, finished or not, with every field in its range; None if missing.

    Raises:
        UserError: the file cannot be read, is damaged, is not a label store's, or has a newer version.
    """
    file = MetaFile.read(path)
    return None if file is None else file.meta


def write_meta(path: Path, meta: dict[str, Any]) -> None:
    """Replaces a store's `meta.json` and adds its checksum."""
    write_atomically(path / 'meta.json', _text(meta, _digest(meta)))


def check_listed(path: Path, meta: dict[str, Any]) -> None:
    """Raises `UserError` unless a finished store lists a checksum for each of its files and for no others."""
    file = path / 'meta.json'
    # lazily, because a damaged num_images can be huge
    unlisted = list(islice((name for name in file_names(meta) if name not in meta['checksums']), MAX_NAMED + 1))
    if unlisted:
        raise UserError(f'{file} has no checksum of {_few(unlisted)}: {RESTORE}.')
    extra = sorted(meta['checksums'].keys() - set(file_names(meta)))
    if extra:
        raise UserError(f'{file} has a checksum of {_few(extra)}, which no store of its size has: {RESTORE}.')


def faults(meta: dict[str, Any]) -> Iterator[str]:
    """Problems of a store's fields, one clause each; all fields must be present."""
    unfit = [name for name, (fits, _) in FIELDS.items() if not fits(meta[name])]
    if unfit:
        yield from (f'{name} is {_short(meta[name])}, where {FIELDS[name][1]}' for name in unfit)
        return
    if meta['k'] > meta['num_classes']:
        yield (
            f"{meta['k']} scores per location are more than the annotator's {meta['num_classes']} classes: "
            f'choose k from 1 to {meta["num_classes"]}'
        )
    if meta['class_names'] is not None and len(meta['class_names']) != meta['num_classes']:
        yield f'{len(meta["class_names"])} class names for {meta["num_classes"]} classes'
    if meta['images_per_shard'] % meta['batch_size']:
        yield f'shards of {meta["images_per_shard"]} images are not made of batches of {meta["batch_size"]}'
    try:
        view_rule(meta['view'])
    except UserError as error:
        yield str(error).rstrip('.')


def _check(file: Path, meta: dict[str, Any]) -> None:
    missing = [name for name in FIELDS if name not in meta]
    if missing:
        raise UserError(f'{file} lacks {", ".join(missing)}: {RESTORE}.')
    unknown = [name for name in meta if name not in FIELDS]
    if unknown:
        raise UserError(f'{file} has the field {_short(unknown[0])}, which no label store has: {RESTORE}.')
    wrong = next(faults(meta), None)
    if wrong:
        raise UserError(f'{file} is damaged ({wrong}): {RESTORE}.')


def _parsed(file: Path, data: bytes) -> dict[str, Any]:
    try:
        if len(data) > MAX_BYTES:
            raise ValueError(f'more than {MAX_BYTES} bytes')
        meta = json.loads(data.decode('utf-8-sig'), object_pairs_hook=_once, parse_constant=_no_number)
    except RecursionError as error:
        raise UserError(f'{file} is damaged (nested too deep): {RESTORE}.') from error
    except ValueError as error:
        raise UserError(f'{file} is damaged ({error}): {RESTORE}.') from error
    if not isinstance(meta, dict) or meta.get('format') != FORMAT:
        raise UserError(f'{file} does not belong to a label store.')
    version = meta.get('version')
    if _is_whole(version, VERSION + 1, math.inf):
        raise UserError(f'{file} has format version {_short(version)}, newer than {VERSION}: update tokenlabel.')
    return meta


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object as dict; refuses duplicate names, of which `json` would silently keep the last."""
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError('a name occurs twice')
    return values


def _no_number(name: str) -> None:
    raise ValueError(f'{name} is not valid JSON')


def _text(meta: dict[str, Any], checksum: str | None) -> bytes:
    fields = meta if checksum is None else meta | {CHECKSUM: checksum}
    return (json.dumps(fields, indent=2, ensure_ascii=True, allow_nan=False) + '\n').encode()


def _digest(meta: dict[str, Any]) -> str:
    return hashlib.sha256(_text(meta, None)).hexdigest()


def _is_whole(value: Any, low: int, high: float) -> bool:
    # bool is a subclass of int
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _whole(low: int, high: int) -> tuple[Callable[[Any], bool], str]:
    return lambda value: _is_whole(value, low, high), f'a whole number from {low} to {high} belongs'


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_grid(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_is_whole(side, 1, MAX_CELLS) for side in value)


def _is_record(value: Any, levels: int = MAX_LEVELS) -> bool:
    """Whether a JSON value has finite numbers only and is nested at most `levels` deep."""
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return levels > 0 and all(_is_record(item, levels - 1) for item in inner)
    return not isinstance(value, float) or math.isfinite(value)


def _are_checksums(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(digest, str) and re.fullmatch('[0-9a-f]{64}', digest) for digest in value.values()
    )


# field: (whether a value is valid, description of valid values)
FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    'format': (lambda value: value == FORMAT, f'{FORMAT!r} belongs'),
    'version': _whole(1, VERSION),
    'annotator': (
        lambda value: isinstance(value, dict) and _is_record(value),
        f'an object of finite numbers, texts and fewer than {MAX_LEVELS} levels belongs',
    ),
    'view': (lambda value: isinstance(value, dict), 'an object with the rule belongs'),
    'num_classes': _whole(1, MAX_CLASSES),
    'class_names': (lambda value: value is None or _is_names(value), 'null or a list of names belongs'),
    'k': _whole(1, MAX_CLASSES),
    'grid': (_is_grid, f'two whole numbers from 1 to {MAX_CELLS} belong'),
    'num_images': _whole(1, MAX_IMAGES),
    'batch_size': _whole(1, MAX_IMAGES),
    'images_per_shard': _whole(1, 2 * MAX_IMAGES),
    'complete': (lambda value: isinstance(value, bool), 'true or false belongs'),
    'skipped': (_is_names, 'a list of names belongs'),
    'checksums': (_are_checksums, 'an object of SHA-256 checksums in hexadecimal belongs'),
}


def _few(names: list[str]) -> str:
    return ', '.join(names[:MAX_NAMED]) + (' and more' if len(names) > MAX_NAMED else '')


def _short(value: Any) -> str:
    shortened = reprlib.Repr()
    shortened.maxstring = shortened.maxother = 120
    return shortened.repr(value)
