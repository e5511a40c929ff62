"""Class maps: files that assign the annotator's classes to the classes of the images.

A class map names an image class for each annotator class in use; annotator classes that it does not name are dropped.
A JSON file is one object, `{"n02123045": "cat", "282": "cat", "207": 1}`. A text file has one pair per line, separated
by a tab, or by spaces if names contain none. A class is given by its name or by its number.

In place of a file, `by_name` keeps the annotator classes that are named as the classes of the images.
"""

import difflib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tokenlabel.errors import UserError
from tokenlabel.files.reading import read_text

Classes = Sequence[str] | int
BY_NAME = 'by_name'


def read_class_map(path: str | Path, from_classes: Classes, to_classes: Classes | None) -> NDArray[np.int64]:
    """Read a class map.

    Args:
        path: `.json`, or text of any other suffix; or `by_name`.
        from_classes: names of the annotator's classes, or their count if they have no names.
        to_classes: names of the image classes, or their count; None to accept any number.

    Returns:
        Image class of each annotator class, int64 [annotator classes]; -1 for dropped classes.

    Raises:
        UserError: the file is missing or not a class map, or names an unknown class, one class twice, or no class; by
            name, a side has no names, or the annotator does not know an image class.
    """
    if path == BY_NAME:
        return _by_name(from_classes, to_classes)
    path = Path(path)
    table = np.full(from_classes if isinstance(from_classes, int) else len(from_classes), -1)
    number_from, number_to = _numbering(from_classes, 'annotator', path), _numbering(to_classes, 'image', path)
    for source, target in _pairs(path):
        row = number_from(source)
        if table[row] >= 0:
            raise UserError(f'Class map {path} names annotator class {source} twice: keep one of the two.')
        table[row] = number_to(target)
    if (table < 0).all():
        raise UserError(f'Class map {path} maps no class: give pairs of an annotator class and an image class.')
    return table


def _by_name(from_classes: Classes, to_classes: Classes | None) -> NDArray[np.int64]:
    sides = {'the annotator': from_classes, 'the images': to_classes}
    for side, classes in sides.items():
        if classes is None or isinstance(classes, int):
            raise UserError(f'class_map={BY_NAME!r} needs names, and the classes of {side} have none: give a file.')
    if unknown := [name for name in to_classes if name not in from_classes]:
        raise UserError(
            f'class_map={BY_NAME!r}: the annotator has no class {unknown[0]} ({len(unknown)} of {len(to_classes)} '
            'image classes are missing): give a file that says which class is which.'
        )
    return match_classes(from_classes, len(from_classes), to_classes, len(to_classes))


def match_classes(
    from_names: Sequence[str] | None, from_count: int, to_names: Sequence[str] | None, to_count: int
) -> NDArray[np.int64]:
    """The target class of each of `from_count` source classes, int64 [from_count]; -1 for classes without a match.

    If both sides have names, classes are matched by name; otherwise equal counts mean the same classes. Source names
    that are numbers and not among the target names, such as the folders 0 to 999 of ImageNet-V2, are target class
    numbers. Names that count from 1 are not used as numbers, because they would be off by one.
    """
    numbers = class_numbers(from_names or ())
    if to_names and not set(from_names or ()).isdisjoint(to_names):
        numbers = None
    if numbers is not None and numbers.max() < to_count:
        return numbers
    if from_names and to_names:
        positions = {name: number for number, name in enumerate(to_names)}
        return np.array([positions.get(name, -1) for name in from_names])
    return np.arange(from_count) if from_count == to_count else np.full(from_count, -1)


def class_numbers(names: Sequence[str]) -> NDArray[np.int64] | None:
    """The names as distinct numbers, int64 [names]; None if one is not a number, or if they count from 1."""
    if not names or not all(re.fullmatch(r'\d{1,9}', name) for name in names):
        return None
    numbers = np.array([int(name) for name in names])
    counts_from_one = sorted(numbers) == list(range(1, len(names) + 1))
    return None if counts_from_one or len(set(numbers)) < len(names) else numbers


def map_classes(scores: NDArray, classes: NDArray, table: NDArray[np.int64]) -> tuple[NDArray, NDArray[np.int64]]:
    """Converts a score map of annotator classes to one of image classes.

    Annotator classes of the same image class become one entry, the logsumexp of their scores in the cell. Dropped
    classes leave entries of score 0 and class 0, which add nothing to a target.

    Args:
        scores: [k, S, S] of any floating dtype, which the result keeps; computed in float32.
        classes: [k, S, S] annotator classes.
        table: result of `read_class_map`.

    Returns:
        Scores and int64 classes, [k, S, S], best first and empty entries last.
    """
    mapped = table[classes]
    same = (mapped[:, None] == mapped[None]) & (mapped >= 0)
    combined = np.logaddexp.reduce(np.where(same, scores.astype(np.float32), -np.inf), axis=1)
    # the first entry of each class represents all entries of it
    rows = np.arange(len(mapped))
    entry = (mapped >= 0) & (same.argmax(1) == rows[:, None, None])
    order = np.argsort(np.where(entry, -combined, np.inf), axis=0, kind='stable')
    scores_out = np.where(entry, combined, 0).astype(scores.dtype)
    return (
        np.take_along_axis(scores_out, order, axis=0),
        np.take_along_axis(np.where(entry, mapped, 0), order, axis=0),
    )


def _pairs(path: Path) -> list[tuple[str, str]]:
    text = read_text(path, 'Class map')
    if path.suffix == '.json':
        try:
            record = json.loads(text, object_pairs_hook=list)
        except (ValueError, RecursionError) as error:
            raise UserError(f'Class map {path} is not valid JSON ({error}).') from error
        pairs = record if isinstance(record, list) else []
        if not all(isinstance(pair, tuple) and type(pair[1]) in (str, int) for pair in pairs):
            raise UserError(f'Class map {path} has to be one JSON object of annotator classes and image classes.')
        return [(source, str(target)) for source, target in pairs]
    pairs = []
    for number, line in enumerate(text.split('\n'), 1):
        words = [word.strip() for word in line.split('\t')] if '\t' in line else line.split()
        if words and len(words) != 2:
            raise UserError(
                f'Class map {path}, line {number}: {line.strip()!r} is not an annotator class and an image class with '
                'a tab between.'
            )
        pairs += [tuple(words)] if words else []
    return pairs


def _numbering(classes: Classes | None, whose: str, path: Path) -> Callable[[str], int]:
    """A function from a class's name, or else its number as text, to its number."""
    names = {} if classes is None or isinstance(classes, int) else {name: row for row, name in enumerate(classes)}
    count = classes if isinstance(classes, int) else len(names)

    def number(name: str) -> int:
        if name in names:
            return names[name]
        if re.fullmatch(r'\d{1,9}', name) and (classes is None or int(name) < count):
            return int(name)
        close = difflib.get_close_matches(name, names, n=3)
        hint = f'did you mean {", ".join(close)}?' if close else f'there are {count} classes.'
        if classes is None:
            hint = 'as the images have no classes of their own, give numbers.'
        raise UserError(f'Class map {path} names the {whose} class {name}, which does not exist: {hint}')

    return number
