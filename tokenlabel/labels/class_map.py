"""From an annotator's classes to those of the images: which of its classes count as which of theirs.

A class map is a file that names an image class for each annotator class that counts; the others are dropped. As JSON it
is one object, `{"n02123045": "cat", "282": "cat", "207": 1}`; as text it has a pair a line, separated by a tab or,
where names hold no spaces, by spaces. A class is given by its name or by its number.
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


def read_class_map(path: str | Path, from_classes: Classes, to_classes: Classes | None) -> NDArray[np.int64]:
    """Read a class map.

    Args:
        path: `.json`, or text of any other suffix.
        from_classes: names of the annotator's classes, or their number where they have no names.
        to_classes: names of the image classes, or their number; None where any number goes.

    Returns:
        Image class of each annotator class, [annotator classes]; -1 where it is dropped.

    Raises:
        UserError: the file is missing or is no class map, names a class that there is not, names one twice, or none.
    """
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


def match_classes(
    from_names: Sequence[str] | None, from_count: int, to_names: Sequence[str] | None, to_count: int
) -> NDArray[np.int64]:
    """The number that each of `from_count` classes has among `to_count` others, [from_count]; -1 where it has none.

    Where both have names these decide; otherwise equal counts are taken for the same classes. Names that are numbers
    and no names of the others, as the folders 0 to 999 of ImageNet-V2, are the numbers of the others' classes; those
    that merely count from 1 are not, for they would be off by one.
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
    """The numbers that all of these names are, [names]; None where they are not, or merely count from 1."""
    if not names or not all(re.fullmatch(r'\d{1,9}', name) for name in names):
        return None
    numbers = np.array([int(name) for name in names])
    counts_from_one = sorted(numbers) == list(range(1, len(names) + 1))
    return None if counts_from_one or len(set(numbers)) < len(names) else numbers


def map_classes(scores: NDArray, classes: NDArray, table: NDArray[np.int64]) -> tuple[NDArray, NDArray[np.int64]]:
    """The map of the image classes, from one of annotator classes.

    Annotator classes of one image class become one entry, the logsumexp of their scores in the cell. What is dropped
    leaves entries of score 0 and class 0, which add nothing to a target.

    Args:
        scores: [k, S, S] of any floating type, which is kept; computed in float32.
        classes: [k, S, S] annotator classes.
        table: as `read_class_map` gives it.

    Returns:
        Scores and int64 classes, [k, S, S], the best first and empty entries last.
    """
    mapped = table[classes]
    same = (mapped[:, None] == mapped[None]) & (mapped >= 0)
    combined = np.logaddexp.reduce(np.where(same, scores.astype(np.float32), -np.inf), axis=1)
    # of the entries of one class the first stands for all
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
            raise UserError(f'Class map {path} is no JSON ({error}).') from error
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
    """Gives the number of a class that is named or, where none is named so, numbered."""
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
