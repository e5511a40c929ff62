"""What a label store is begun with: possible or not, and the same on every later run."""

from pathlib import Path
from typing import Any

import numpy as np

from tokenlabel.errors import UserError
from tokenlabel.labels.store.keys import decode_key
from tokenlabel.labels.store.meta import faults


def check_settings(settings: dict[str, Any]) -> None:
    """Raise `UserError` for settings that no store can have."""
    wrong = next(faults(settings | {'complete': False, 'skipped': [], 'checksums': {}}), None)
    if wrong:
        raise UserError(f'{wrong[0].upper()}{wrong[1:]}.')


def check_same(path: Path, stored: dict[str, Any], settings: dict[str, Any]) -> None:
    """Raise `UserError` where the store at `path` was begun with other settings than these; it says which."""
    own, kept = _flat(settings), _flat(stored)
    names = [name for name in own if own[name] != kept.get(name)]
    if names:
        said = ', '.join(
            'other class names' if name == 'class_names' else f'{name} {kept.get(name)} instead of {own[name]}'
            for name in names
        )
        raise UserError(f'{path} was begun with other settings ({said}): use the same ones, or give another folder.')


def check_same_images(path: Path, there: np.ndarray, here: np.ndarray) -> None:
    """Raise `UserError` where the sorted keys of the store at `path` are not these; it names the first difference."""
    if len(there) == len(here) and np.array_equal(there, here):
        return
    added, missing = np.setdiff1d(here, there), np.setdiff1d(there, here)
    example = decode_key((added if len(added) else missing)[0])
    raise UserError(
        f'{path} was begun for other images ({len(there)} there, {len(here)} here, the first difference is {example}): '
        'give another folder, or the images it was begun with.'
    )


def _flat(settings: dict, prefix: str = '') -> dict[str, Any]:
    """Nested settings as one dict of readable names, such as `annotator name`."""
    flat = {}
    for name, value in settings.items():
        flat |= _flat(value, f'{prefix}{name} ') if isinstance(value, dict) else {f'{prefix}{name}': value}
    return flat
