"""What a signature says of an argument: its type hint, and the range beside it, checked before anything is made.

    class Crop:
        @checked
        def __init__(self, size: Count, hflip: Probability = 0.5): ...

A call with `hflip=9` is a `UserError` then; configs are checked against the same hints before they are built.
"""

import collections.abc
import functools
import inspect
import math
import os
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Number, Real
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union

import numpy as np

from tokenlabel.errors import UserError

P = ParamSpec('P')
R = TypeVar('R')

_SEQUENCES = (list, tuple, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_WORDS = {int: 'a whole number', float: 'a number', bool: 'True or False', str: 'a text', type(None): 'None'}


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`.

    Args:
        low: the least of them.
        high: the greatest of them.
        above: without `low` itself.
        below: without `high` itself.
        infinite: infinity is one of them where `high` is.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False
    infinite: bool = False

    def __contains__(self, value: float) -> bool:
        if value in (math.inf, -math.inf) and not self.infinite:
            return False
        over = value > self.low if self.above else value >= self.low
        return over and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        low = f'above {self.low:g}' if self.above else f'from {self.low:g} on'
        if math.isinf(self.high):
            return low
        if self.above:
            return f'{low} and {"below" if self.below else "at most"} {self.high:.10g}'
        return f'from {self.low:g} to {"below " if self.below else ""}{self.high:.10g}'


@dataclass(frozen=True)
class Ascending:
    """Numbers of which none is below the one before."""

    def __contains__(self, values: Sequence[float]) -> bool:
        return list(values) == sorted(values)

    def __str__(self) -> str:
        return 'the least first'


Count = Annotated[int, Range(1)]
Natural = Annotated[int, Range(0)]
Probability = Annotated[float, Range(0, 1)]
Rate = Annotated[float, Range(0, 1, below=True)]
Share = Annotated[float, Range(0, 1, above=True)]
Positive = Annotated[float, Range(0, above=True)]
NonNegative = Annotated[float, Range(0)]
Size = Count | tuple[Count, Count]


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a constructor, or a function, whose hints its arguments have to fit.

    Raises:
        UserError: when called, an argument of another type or out of its range.
    """
    signature = inspect.signature(function)
    owner = function.__qualname__.split('.')[0]

    @functools.cache
    def hints() -> dict[str, Any]:
        return typing.get_type_hints(function, include_extras=True)

    @functools.wraps(function)
    def checking(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:
            return function(*args, **kwargs)  # Python says best what is missing or too much
        for name, value in given.items():
            is_one = signature.parameters[name].kind is not inspect.Parameter.VAR_KEYWORD
            if is_one and name in hints() and not fits(value, hints()[name]):
                raise UserError(f'{owner}.{name} is {shown(value)}: give {described(hints()[name])}.')
        return function(*args, **kwargs)

    return checking


def fits(value: object, hint: object, loose: bool = False) -> bool:
    """Whether a value is what a type hint says, ranges included.

    Whole numbers are numbers, lists are tuples, paths are texts. NaN is no number. What is not known here (a class, a
    type variable) anything fits.

    Args:
        value: the argument.
        hint: of the parameter.
        loose: a float without a fraction is a whole number.
    """
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return fits(value, parts[0], loose) and all(value in mark for mark in hint.__metadata__)
    if origin in (Union, types.UnionType):
        return any(fits(value, part, loose) for part in parts)
    if origin is Literal:
        return any(type(value) is type(part) and value == part for part in parts)
    if hint is Any:
        return True
    if hint is None or hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool | np.bool_) or (type(value) is int and value in (0, 1))
    if hint is int:
        whole = isinstance(value, Integral) and not isinstance(value, bool)
        return whole or (loose and isinstance(value, float) and value.is_integer())
    if hint is float or hint is Number:
        return isinstance(value, Real) and not isinstance(value, bool) and value == value  # NaN is not
    if hint is str:
        return isinstance(value, str | os.PathLike)
    kind = origin or hint
    if kind in _SEQUENCES:
        return _fits_sequence(value, kind, parts, loose)
    if kind in _MAPPINGS:
        return isinstance(value, collections.abc.Mapping)
    if kind is type or kind is collections.abc.Callable:
        return not isinstance(value, Number | list | tuple)
    if isinstance(kind, type) and kind is not object:
        if issubclass(kind, os.PathLike):
            return isinstance(value, str | os.PathLike)
        if kind.__name__ == 'Tensor':
            return _is_instance(value, kind)
        # may be built from a dict, or looked up by its name
        return not isinstance(value, Number) or _is_instance(value, kind)
    return True


def described(hint: object) -> str:
    """A type hint in words: `a whole number from 1 on or None`."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        marks = (f', {mark}' if isinstance(mark, Ascending) else f' {mark}' for mark in hint.__metadata__)
        return ''.join([described(parts[0]), *marks])
    if origin in (Union, types.UnionType):
        return ' or '.join(dict.fromkeys(described(part) for part in parts))
    if origin is Literal:
        return ' or '.join(repr(part) for part in parts)
    if hint is None:
        return 'None'
    if hint is Number:
        return 'a number'
    kind = origin or hint
    if kind in _SEQUENCES:
        if kind is tuple and parts and parts[-1] is not Ellipsis:
            inner = ' and '.join(dict.fromkeys(described(part) for part in parts))
            return f'{len(parts)} values, each {inner}'
        return 'a list' + (f', each entry {described(parts[0])}' if parts and parts[0] is not Any else '')
    if kind in _MAPPINGS:
        return 'a dict'
    return _WORDS.get(hint) or getattr(hint, '__name__', str(hint))


def shown(value: object, length: int = 80) -> str:
    """A value as a message shows it, on one line and not too long."""
    text = ' '.join(repr(value).split())
    return text if len(text) <= length else f'{text[: length - 3]}...'


def _is_instance(value: object, kind: type) -> bool:
    try:
        return isinstance(value, kind)
    except TypeError:  # of protocols and the like
        return True


def _fits_sequence(value: object, kind: type, parts: tuple, loose: bool) -> bool:
    if isinstance(value, str | bytes | collections.abc.Mapping | Number) or value is None:
        return False
    if not isinstance(value, list | tuple) or not parts:
        return True
    if kind is tuple and parts[-1] is not Ellipsis:
        return len(value) == len(parts) and all(fits(v, p, loose) for v, p in zip(value, parts, strict=True))
    return all(fits(element, parts[0], loose) for element in value)
