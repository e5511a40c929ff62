"""Checks the settings of a label store: that they are valid, and that a later run uses the same ones."""

from pathlib import Path
from typing import Any

import numpy as np

from tokenlabel.errors import UserError
from tokenlabel.labels.store.keys import decode_key
from tokenlabel.labels.store.meta import faults


def check_settings(settings: dict[str, Any]) -> None:
    """Raises `UserError` for invalid settings."""
    wrong = next(faults(settings | {'complete': False, 'skipped': [], 'checksums': {}}), None)
    if wrong:
        raise UserError(f'{wrong[0].upper()}{wrong[1:]}.')


def check_same(path: Path, stored: dict[str, Any], settings: dict[str, Any]) -> None:
    """Raises `UserError` if the store at `path` was begun with other settings, and lists the differences."""
    new, old = _flat(settings), _flat(stored)
    names = [name for name in new if new[name] != old.get(name)]
    if names:
        differences = ', '.join(
            'other class names' if name == 'class_names' else f'{name} {old.get(name)} instead of {new[name]}'
            for name in names
        )
        raise UserError(
            f'{path} was begun with other settings ({differences}): use the same ones, or give another folder.'
        )


def check_same_images(path: Path, there: np.ndarray, here: np.ndarray) -> None:
    """Raises `UserError` if `there`, the sorted keys of the store at `path`, are not `here`; names one difference."""
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
