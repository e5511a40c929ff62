"""Type hints and ranges of arguments: what fits, how they are worded, and what a checked constructor refuses."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from tokenlabel.argument_checks import (
    Ascending,
    Count,
    NonNegative,
    Positive,
    Probability,
    Range,
    Rate,
    Share,
    Size,
    checked,
    described,
    fits,
)
from tokenlabel.errors import UserError

Pair = Annotated[tuple[Positive, Positive], Ascending()]


@pytest.mark.parametrize(
    ('value', 'hint'),
    [
        (4, int),
        (4, float),
        (True, bool),
        (1, bool),
        ('x', str),
        (Path('x'), str),
        ('x', Path),
        (None, int | None),
        ([1, 2], tuple[int, int]),
        ((1, 2), list[int]),
        ([], Sequence[int]),
        ({'a': 1}, dict),
        ('fsdp', Literal['fsdp']),
        (0.5, Probability),
        (1, Probability),
        (0, Rate),
        (1, Share),
        (224, Size),
        ((224, 192), Size),
        ((0.1, 1.0), Pair),
        (math.inf, float),
        (object(), Any),
        ('ReLU', type | str),
        ('looked up', Callable),
    ],
)
def test_a_value_fits_its_hint(value, hint):
    assert fits(value, hint)


@pytest.mark.parametrize(
    ('value', 'hint'),
    [
        ('4', int),
        (2.5, int),
        (4.0, int),
        (True, int),
        ('0.1', float),
        (True, float),
        (math.nan, float),
        ('False', bool),
        (2, bool),
        (5, str),
        (5, Path),
        (None, int),
        ('ab', list[str]),
        ('ab', Sequence[str]),
        ([1, 2, 3], tuple[int, int]),
        ([1, 'a'], list[int]),
        ([1], dict),
        ('zzz', Literal['fsdp']),
        (True, Literal[1]),
        (9, Probability),
        (-0.1, Probability),
        (math.nan, Probability),
        (1, Rate),
        (0, Share),
        (0, Count),
        (-1, NonNegative),
        (math.inf, NonNegative),
        (0, Size),
        ((224, 0), Size),
        ((1.0, 0.5), Pair),
        (5, Callable),
    ],
)
def test_a_value_that_does_not_fit_is_told(value, hint):
    assert not fits(value, hint)


def test_a_float_without_a_fraction_is_a_whole_number_where_that_is_loose():
    assert fits(4e4, Count, loose=True)
    assert not fits(2.5, Count, loose=True)
    assert not fits(math.inf, int, loose=True)


@pytest.mark.parametrize(
    ('hint', 'words'),
    [
        (Count, 'a whole number from 1 on'),
        (Count | None, 'a whole number from 1 on or None'),
        (Probability, 'a number from 0 to 1'),
        (Rate, 'a number from 0 to below 1'),
        (Share, 'a number above 0 and at most 1'),
        (Annotated[int, Range(0, 2**31 - 1)], 'a whole number from 0 to 2147483647'),
        (Pair, '2 values, each a number above 0, the least first'),
        (list[str], 'a list, each entry a text'),
        (Literal['a', 'b'], "'a' or 'b'"),
    ],
)
def test_a_hint_is_said_in_words(hint, words):
    assert described(hint) == words


class Crop:
    @checked
    def __init__(self, size: Count, hflip: Probability = 0.5, **others: int) -> None:
        self.size, self.hflip, self.others = size, hflip, others


def test_a_checked_constructor_takes_what_fits():
    crop = Crop(4, hflip=1, more='x')
    assert (crop.size, crop.hflip, crop.others) == (4, 1, {'more': 'x'})


def test_a_checked_constructor_names_what_does_not_fit():
    with pytest.raises(UserError, match=r'^Crop\.hflip is 9: give a number from 0 to 1\.$'):
        Crop(4, 9)
    with pytest.raises(TypeError, match='missing'):
        Crop()
