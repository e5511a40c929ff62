"""Validates the contents of a checkpoint: plain tensors, names, and metadata of the right types."""

import numbers
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from tokenlabel.errors import UserError

# Entries that may hold the weights; otherwise the weights are the file's own entries.
WEIGHTS = ('state_dict', 'ema_state_dict', 'state_dict_ema', 'model', 'model_ema')
# Far above what trainers write: the RNG states of 1000 processes are 1.3 million values.
MAX_DEPTH = 100
MAX_VALUES = 10_000_000


def check_contents(contents: dict, path: str | Path, size: int) -> None:
    """Checks the contents of a checkpoint once, so that later code can rely on their types.

    Removes an entry `meta`, `state_dict` or `ema_state_dict` that is None.

    Args:
        contents: contents of the file.
        path: the file, for messages.
        size: size of the file in bytes.

    Raises:
        UserError: a name is not a string; values are nested too deep or too many; a tensor is an expanded view of a
            smaller storage; `meta`, `tokenlabel` or one of their fields has another type than expected; or the numbers
            of classes and class names differ.
    """

    def refuse(what: str) -> None:
        raise UserError(f'{path} {one_line(what)}: save it anew where it was made, or give another checkpoint')

    for name in ('meta', 'state_dict', 'ema_state_dict'):
        if contents.get(name, 0) is None:
            del contents[name]
    for name in ('state_dict', 'ema_state_dict', 'meta', 'tokenlabel'):
        if not isinstance(contents.get(name, {}), Mapping):
            refuse(f'has an entry `{name}` that is not a dictionary but {shown(contents[name])}')
    for names in (contents, *(contents.get(name) for name in WEIGHTS)):
        if odd := [name for name in names or () if not isinstance(name, str)]:
            refuse(f'has an entry named {shown(odd[0])}, which is not a string')
    _check_values(contents, size, refuse)
    _check_notes(contents.get('tokenlabel', {}), refuse)
    meta = contents.get('meta', {})
    _check_dataset_meta(meta.get('dataset_meta'), refuse)
    _check_dataset_meta({key.lower(): meta[key] for key in ('CLASSES', 'PALETTE') if key in meta}, refuse)


def refuse_non_finite(weights: Mapping[str, object], source: str | Path) -> None:
    """Checks that weights, including the running statistics of BatchNorm, are finite.

    Args:
        weights: weights by name; other values than tensors are ignored.
        source: their file, for messages.

    Raises:
        UserError: a weight is NaN or infinite.
    """
    if name := first_non_finite(weights):
        raise UserError(
            f'{source} holds weights that are NaN or infinite (the first: {one_line(name)}), so its output is '
            'meaningless: give a checkpoint from before its training went wrong'
        )


def first_non_finite(weights: Mapping[str, object]) -> str | None:
    """Name of the first tensor with a NaN or infinite value; None if all are finite."""
    return next((name for name, x in weights.items() if isinstance(x, Tensor) and not is_finite(x)), None)


def is_finite(tensor: Tensor) -> bool:
    """Whether all values are finite, in one pass and without a mask of the tensor's size."""
    tensor = tensor.detach()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    if tensor.element_size() < 2:  # torch does not compare 8-bit floats
        tensor = tensor.float()
    return all(bool(extreme.isfinite()) for extreme in torch.aminmax(tensor))


def is_number(value: object) -> bool:
    """Whether a value is a finite real number and not a bool."""
    is_real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return is_real and abs(value) <= sys.float_info.max


def shown(value: object) -> str:
    """A short text for any value, for messages."""
    if isinstance(value, str | int | float | bool | None):
        return repr(value)[:60]
    return f'a {type(value).__name__}'


def one_line(text: str) -> str:
    """Shortens a text with names from a file to one line of at most 400 characters."""
    return ' '.join(text.split())[:400]


def _check_values(contents: Mapping, size: int, refuse: Callable[[str], None]) -> None:
    """Checks depth, number and storages of all values. Iterative; counts shared values each time they occur."""
    todo: list[tuple[object, str, int]] = [(contents, '', 0)]
    num_values = 0
    storages: dict[int, int] = {}
    while todo:
        value, place, depth = todo.pop()
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            if value.numel() * value.element_size() > storage.nbytes():
                refuse(f'holds {place} as a view that repeats the values of a smaller tensor')
            storages[storage._cdata] = storage.nbytes()
            continue
        if depth > MAX_DEPTH:
            refuse(f'nests values more than {MAX_DEPTH} deep, as no checkpoint does')
        num_values += len(value)
        if num_values > MAX_VALUES:
            refuse(f'holds more than {MAX_VALUES} values beside its tensors, as no checkpoint does')
        items = value.items() if isinstance(value, Mapping) else ((place, inner) for inner in value)
        for name, inner in items:
            if isinstance(inner, Tensor | Mapping | list | tuple | set):
                todo.append((inner, f'{place}.{name}' if place and name is not place else str(name)[:200], depth + 1))
    if sum(storages.values()) > size:
        refuse('declares tensors that are larger than the whole file')


def _check_notes(noted: Mapping, refuse: Callable[[str], None]) -> None:
    """Checks the entry `tokenlabel`, see `tokenlabel.engine.hooks.model_config.ModelConfigHook`."""

    def check(key: str, is_right: Callable[[object], bool], kind: str) -> None:
        if noted.get(key) is not None and not is_right(noted[key]):
            refuse(f'notes {key}={shown(noted[key])} in its entry `tokenlabel`, which is {kind}')

    check('architecture', lambda value: isinstance(value, str), 'no name')
    check('num_classes', lambda value: type(value) is int and value >= 0, 'no number of classes')
    check('class_names', _are_names, 'no list of names')
    check('token_score_weight', is_number, 'no number')
    count, names = noted.get('num_classes'), noted.get('class_names')
    if count is not None and names is not None and len(names) != count:
        refuse(f'notes {len(names)} names for {count} classes in its entry `tokenlabel`')


def _check_dataset_meta(found: object, refuse: Callable[[str], None]) -> None:
    """Checks MMSegmentation's class names and colours; arrays are ignored, because only plain values are read."""
    if found is None:
        return
    if not isinstance(found, Mapping):
        refuse(f'has an entry `dataset_meta` that is not a dictionary but {shown(found)}')
    classes, palette = found.get('classes'), found.get('palette')
    if isinstance(classes, _PLAIN) and not _are_names(classes):
        refuse(f'gives {shown(classes)} as class names, which is not a list of names')
    if isinstance(palette, _PLAIN) and not (isinstance(palette, list | tuple) and all(map(_is_colour, palette))):
        refuse(f'gives {shown(palette)} as class colours, which are not lists of red, green and blue up to 255')


_PLAIN = (str, bytes, int, float, Mapping, list, tuple, set, Tensor)


def _are_names(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)


def _is_colour(value: object) -> bool:
    if not isinstance(value, _PLAIN):
        return True
    return isinstance(value, list | tuple) and len(value) == 3 and all(map(_is_part_of_colour, value))


def _is_part_of_colour(value: object) -> bool:
    return not isinstance(value, _PLAIN) or (type(value) is int and 0 <= value <= 255)
