"""The classes of the numbers or colours in masks, from `classes`, `ignore` and `others` of a config."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tokenlabel.errors import UserError
from tokenlabel.files.reading import read_lines, read_names
from tokenlabel.pictures.labels import class_palette

IGNORED = 255  # MMSegmentation's default ignored label
MOST_CLASSES = 255
MOST_NUMBERS = 2**16  # numbers in a mask of 16 bits
_UNKNOWN = 256  # in the tables, for numbers and colours that are not named
_COLOUR = re.compile(r'#[0-9a-fA-F]{6}')
_NUMBER = re.compile(r'\d{1,5}')

Value = int | str  # of a mask: a number, or a colour such as '#400080'


@dataclass(frozen=True)
class MaskClasses:
    """Which class each number or colour in a mask stands for.

    Attributes:
        names: Names of the classes.
        numbers: (number in a mask, class) pairs; the class is `IGNORED` for ignored numbers.
        colours: (red << 16 | green << 8 | blue, class) pairs. If there are any, masks are read in colour, and a number
            n means the grey (n, n, n).
        others: Class of numbers and colours that are not named, or `IGNORED`; None if these are an error.
    """

    names: tuple[str, ...]
    numbers: tuple[tuple[int, int], ...]
    colours: tuple[tuple[int, int], ...] = ()
    others: int | None = None

    @property
    def is_plain(self) -> bool:
        """Whether masks hold the class numbers themselves, and 255 for ignored pixels."""
        own = {(number, number) for number in range(len(self.names))} | {(IGNORED, IGNORED)}
        return not self.colours and self.others is None and set(self.numbers) == own

    def palette(self) -> list[tuple[int, int, int]]:
        """An RGB colour for each class: the first that it has in the masks, else a distinct one."""
        own: dict[int, tuple[int, int, int]] = {}
        for colour, label in self.colours:
            own.setdefault(label, (colour >> 16, colour >> 8 & 255, colour & 255))
        return [own.get(label, other) for label, other in enumerate(class_palette(len(self.names)))]

    def labels(self, stored: np.ndarray, path: str | Path) -> np.ndarray:
        """The class of each pixel, uint8 [H, W].

        Args:
            stored: Numbers [H, W] as stored in the mask; RGB, uint8 [H, W, 3], if classes have colours.
            path: Path of the mask.

        Raises:
            UserError: The mask holds a number or colour that is not named.
        """
        table = _table(self)
        if self.colours:
            values = (stored.astype(np.int32) << (16, 8, 0)).sum(-1, dtype=np.int32)
            labels = table[values]
        elif stored.dtype == np.uint8:
            labels = cv2.LUT(stored, table[:256])
        else:
            # the last entry of the table is for all larger numbers
            labels = table[stored if stored.dtype == np.uint16 else np.minimum(stored, MOST_NUMBERS)]
        if self.others is None and labels.max(initial=0) == _UNKNOWN:
            self._refuse(stored if not self.colours else values, labels == _UNKNOWN, path)
        return labels.astype(np.uint8)

    def _refuse(self, values: np.ndarray, is_unknown: np.ndarray, path: str | Path) -> None:
        found = np.unique(values[is_unknown]).tolist()
        shown = [f'#{value:06x}' if self.colours else str(value) for value in found[:5]]
        raise UserError(
            f'Annotation {path} holds {"colour" if self.colours else "id"} {", ".join(shown)}'
            f'{"..." if len(found) > 5 else ""} in {int(is_unknown.sum())} pixels, but the classes are '
            f'{self.described()}: {self._remedy(found, shown)}.'
        )

    def _remedy(self, found: list[int], shown: list[str]) -> str:
        """The remedy for numbers or colours that are not named."""
        numbers = sorted(number for number, label in self.numbers if label != IGNORED)
        if self.colours or numbers != list(range(numbers[0], numbers[-1] + 1)):
            them = shown[0] if len(found) == 1 else 'them'
            return f"name {them} in `classes` or in ignore=[...], or set others='ignore'"
        remedy, following = 'correct the file, or the classes of the data set', numbers[-1] + 1
        if numbers[0] == 0 and found == [following]:
            remedy += (
                f'; if {following} marks unlabelled pixels, set ignore=[{following}] for your own folders, '
                f'ignore_index={following} for other data sets; if the classes are 1 to {following}, '
                'reduce_zero_label=True'
            )
        return remedy

    def described(self) -> str:
        """A short description of the numbers or colours that a mask may hold."""
        numbers = sorted(number for number, label in self.numbers if label != IGNORED)
        ignored = sorted(number for number, label in self.numbers if label == IGNORED)
        parts = []
        if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1)):
            parts.append(f'{numbers[0]} to {numbers[-1]}')
        elif numbers:
            parts.append(' and '.join(map(str, numbers)) if len(numbers) < 3 else ', '.join(map(str, numbers[:8])))
        if self.colours:
            parts.append(f'{len(self.colours)} colours')
        are = 'is' if len(ignored) == 1 else 'are'
        return ' and '.join(parts) + (f' ({" and ".join(map(str, ignored))} {are} ignored)' if ignored else '')


@lru_cache(maxsize=64)
def counted_classes(
    num_classes: int | None,
    reduce_zero_label: bool = False,
    label_map: tuple[tuple[int, int], ...] = (),
    ignore_index: int = IGNORED,
) -> MaskClasses:
    """The classes of an MMSegmentation data set, whose masks hold consecutive class numbers.

    Args:
        num_classes: Number of classes after `reduce_zero_label`; None allows up to 255.
        reduce_zero_label: A stored 0 is ignored and the classes count from 1.
        label_map: (class in the mask, class, or 255 for none) pairs, if a config selects some of the classes.
        ignore_index: A class to ignore in addition to 255.
    """
    count, chosen, numbers = min(num_classes or MOST_CLASSES, MOST_CLASSES), dict(label_map), {IGNORED: IGNORED}
    for number in range(IGNORED):
        label = number - reduce_zero_label
        if label < 0 or label == ignore_index:
            numbers[number] = IGNORED
        elif label in chosen or label < count:
            numbers[number] = chosen.get(label, label)
    return MaskClasses(tuple(map(str, range(count))), tuple(sorted(numbers.items())))


def mask_classes(
    classes: Sequence[str] | Mapping[str, Value | Sequence[Value]] | str | None,
    ignore: Value | Iterable[Value] = (),
    others: str = 'error',
    data_root: str | Path | None = None,
    count_from_one: bool = False,
) -> MaskClasses:
    """Parses the classes of a config.

    Args:
        classes: Names in the order of their numbers; or names with their number, colour (`'#400080'`) or a list of
            these; or a file below `data_root`: one name per line, `name,number` or `name,#colour` per line, or CVAT's
            `labelmap.txt`.
        ignore: Numbers or colours to ignore; in masks without colours also 255, unless it is a class.
        others: Treatment of numbers and colours that are not named: 'error', 'ignore', or the name of a class.
        data_root: Folder of the file.
        count_from_one: A list of names counts from 1, and 0 is ignored.

    Raises:
        UserError: There are no classes or more than 255, a name, number or colour occurs twice, or a value is neither
            a number nor a colour.
    """
    if classes is None:
        raise UserError('The data set has no classes: name them, classes=[...], in the order of their ids.')
    if isinstance(classes, str):
        classes = _from_file(Path(data_root or '', classes))
    if isinstance(classes, Mapping):
        if count_from_one:
            raise UserError(
                'The data set has reduce_zero_label and class numbers: leave out reduce_zero_label, and put 0 into '
                '`ignore`.'
            )
        values = {str(name): _listed(value) for name, value in classes.items()}
    else:
        values = {str(name): [number + count_from_one] for number, name in enumerate(classes)}
        repeated = next((name for name in values if list(classes).count(name) > 1), None)
        if repeated is not None:
            _refuse_classes(f'{repeated!r} is named twice')
    if not 1 <= len(values) <= MOST_CLASSES:
        _refuse_classes(f'there are {len(values)}')
    numbers, colours = {}, {}
    for label, (name, of_class) in enumerate(values.items()):
        for value in of_class:
            _add(value, label, name, numbers, colours, list(values))
    for value in [*_listed(ignore), *([0] if count_from_one else [])]:
        _add(value, IGNORED, 'ignore', numbers, colours, list(values))
    if not colours:
        numbers.setdefault(IGNORED, IGNORED)
    if others not in ('error', 'ignore', *values):
        raise UserError(f"others is {others!r}: set 'error', 'ignore' or one of the classes, {', '.join(values)}.")
    other = {'error': None, 'ignore': IGNORED}.get(others, list(values).index(others) if others in values else None)
    return MaskClasses(tuple(values), tuple(sorted(numbers.items())), tuple(colours.items()), other)


@lru_cache(maxsize=8)
def _table(classes: MaskClasses) -> np.ndarray:
    """Class of each number, uint16 [65537] (the last entry is for larger ones), or of each colour, uint16 [2 ** 24]."""
    others = _UNKNOWN if classes.others is None else classes.others
    table = np.full(2**24 if classes.colours else MOST_NUMBERS + 1, others, np.uint16)
    for number, label in classes.numbers:
        if not classes.colours:
            table[number] = label
        elif number < 256:
            table[number * 0x010101] = label
    for colour, label in classes.colours:
        table[colour] = label
    return table


def _refuse_classes(reason: str) -> None:
    raise UserError(f'The data set needs 1 to 255 classes with different names, but {reason}: correct `classes`.')


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple, set, range)) else [value]


def _add(
    value: Any, label: int, name: str, numbers: dict[int, int], colours: dict[int, int], names: Sequence[str]
) -> None:
    if isinstance(value, str) and _COLOUR.fullmatch(value):
        key, found, what = int(value[1:], 16), colours, value
    elif isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST_NUMBERS:
        key, found, what = value, numbers, str(value)
    else:
        raise UserError(
            f'`classes` has {value!r} for {name}: give a number from 0 to {MOST_NUMBERS - 1}, a colour such as '
            "'#400080', or a list of these."
        )
    if key in found:
        other = 'ignore' if found[key] == IGNORED else names[found[key]]
        raise UserError(f'{what} is assigned to {other} and to {name}: assign it to one of them.')
    found[key] = label


def _from_file(path: Path) -> list[str] | dict[str, list[Value]]:
    """Names, or names with their numbers or colours, of a text file."""
    lines = [line for line in read_lines(path, 'The list of classes') if line and not line.startswith('# ')]
    if lines and all(line.count(':') == 3 for line in lines):  # CVAT: name:red,green,blue:parts:actions
        pairs = [line.split(':')[:2] for line in lines]
    elif lines and all(re.search(r'[,;\t]', line) for line in lines):
        pairs = [[part.strip() for part in re.split(r'[,;\t]', line, maxsplit=1)] for line in lines]
        if len(pairs) > 1 and _value(pairs[0][1]) is None:
            pairs = pairs[1:]  # a header
    else:
        return read_names(path, 'The list of classes')
    found: dict[str, list[Value]] = {}
    for name, text in pairs:
        value = _value(text)
        if value is None:
            raise UserError(f'{path} has {text!r} for {name}: give a number, or a colour such as #400080 or 64,0,128.')
        found.setdefault(name, []).append(value)
    return found


def _value(text: str) -> Value | None:
    """A number or a colour: `3`, `#400080`, `64,0,128`."""
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return int(text)
    if _COLOUR.fullmatch(text):
        return text
    channels = list(_channels(text))
    return f'#{channels[0]:02x}{channels[1]:02x}{channels[2]:02x}' if len(channels) == 3 else None


def _channels(text: str) -> Iterator[int]:
    for part in re.split(r'[,;\s]+', text):
        if _NUMBER.fullmatch(part) and int(part) < 256:
            yield int(part)
