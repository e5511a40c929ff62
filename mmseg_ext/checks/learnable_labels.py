"""Checks by a sample of annotations whether there is anything to learn."""

from dataclasses import dataclass, field

import numpy as np

from mmseg_ext.checks.rank_zero_log import rank_zero_log
from mmseg_ext.datasets.load_label_map import stored_ids
from mmseg_ext.datasets.mask_classes import IGNORED
from tokenlabel.errors import UserError

MOST_IGNORED = 0.99  # share of the pixels
NAMED = 5  # classes in a message


@dataclass
class SampledLabels:
    """The labels in a sample of a data set's annotations.

    Attributes:
        place: Path of the data set in the config.
        kind: Type of the data set.
        folder: Folder of the annotations.
        classes: Class names; empty if the data set has none.
        ignore_index: The ignored label.
        reduce_zero_label: Whether a stored 0 is ignored and the classes count from 1.
        num_files: Number of annotations in the data set.
        pixels: Number of pixels with each label, int64 [256].
        files: The annotations that were read.
        shapes: (height, width) of their images in pixels.
    """

    place: str
    kind: str
    folder: str
    classes: tuple[str, ...]
    ignore_index: int
    reduce_zero_label: bool
    num_files: int
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    files: list[str] = field(default_factory=list)
    shapes: list[tuple[int, int]] = field(default_factory=list)

    def add(self, file: str, labels: np.ndarray) -> None:
        """Counts the labels [H, W] of an annotation."""
        self.pixels += np.bincount(labels.ravel(), minlength=256)
        self.files.append(file)
        self.shapes.append(labels.shape)

    @property
    def present(self) -> list[int]:
        """The classes that occur."""
        return [label for label in np.flatnonzero(self.pixels).tolist() if label != self.ignore_index]

    @property
    def absent(self) -> list[int]:
        """The classes that do not occur, without an ignored one."""
        return sorted(set(range(len(self.classes))) - {self.ignore_index, *self.present})


def check_learnable(samples: list[SampledLabels], split: str) -> None:
    """Checks that the annotations of a split contain classes to learn or to score.

    A warning names classes that do not occur, if enough annotations were read to expect them.

    Args:
        samples: One sample for each data set of the split.
        split: `train`, `val` or `test`.

    Raises:
        UserError: In `train`, fewer than two classes occur or at least 99 % of the pixels are ignored; in `val` and
            `test`, no class occurs; or the files hold only 0 and 255.
    """
    samples = [sample for sample in samples if sample.files]
    present = {label for sample in samples for label in sample.present}
    if not samples:
        return
    for sample in samples:
        if len(sample.present) < 2 and (stored := _stored(sample)) == [0, IGNORED]:
            raise UserError(_nothing(sample, stored, split))
    sample = samples[0]
    if len(present) < (2 if split == 'train' else 1):
        raise UserError(_nothing(sample, _stored(sample), split))
    if len(present) < 2:
        rank_zero_log(
            f'Only {_names(sample, sample.present)} occurs in {_looked_at(sample)}: scores of one class mean little, '
            'and the choice of the best checkpoint by them is random.'
        )
    pixels = sum(one.pixels for one in samples)
    share = pixels[sample.ignore_index] / pixels.sum()
    if split == 'train' and share >= MOST_IGNORED:
        raise UserError(
            f'{100 * share:.1f} % of the pixels in {_looked_at(sample)} are ignored, so almost nothing can be '
            f'learned; {_remedy(sample, _stored(sample))}.'
        )
    if split == 'train':
        _warn_of_absent(samples)


def many_for(num_classes: int) -> int:
    """Number of annotations in which all of `num_classes` classes should occur, except rare ones."""
    return 10 * num_classes


def _warn_of_absent(samples: list[SampledLabels]) -> None:
    absent = set.intersection(*(set(sample.absent) for sample in samples))
    sample = samples[0]
    read = sum(len(one.files) for one in samples)
    if not absent or (any(len(one.files) < one.num_files for one in samples) and read < many_for(len(sample.classes))):
        return
    stored = set(_stored(sample))
    hint = ''
    if sample.reduce_zero_label and max(absent) == len(sample.classes) - 1 and 0 in stored:
        hint = (
            f'; its numbers are {min(stored)} to {max(stored - {IGNORED}, default=0)}, of which reduce_zero_label=True '
            f'ignores 0: leave that out where 0 is {sample.classes[0]}'
        )
    elif len(absent) == 1 and IGNORED in stored:
        [label] = absent
        hint = f'; 255 is ignored: where it stands for {sample.classes[label]}, {_mapped(sample, label)}'
    places = _looked_at(sample) if len(samples) == 1 else f'{read} masks of {len(samples)} data sets'
    rank_zero_log(
        f'{_names(sample, sorted(absent))} of {len(sample.classes)} classes cannot be learned: not in {places}{hint}.'
    )


def _nothing(sample: SampledLabels, stored: list[int], split: str) -> str:
    occurs = f'of the {len(sample.classes)} classes ' if sample.classes else ''
    occurs += f'{_names(sample, sample.present)} alone occurs' if sample.present else 'none occurs'
    what = 'learned from' if split == 'train' else 'scored by'
    hold = 'holds' if len(sample.files) == 1 else 'hold'
    holding = f', which {hold} {_listing(stored)} alone' if stored else ''
    return f'Nothing can be {what} {_looked_at(sample)}{holding}: {occurs}; {_remedy(sample, stored)}.'


def _remedy(sample: SampledLabels, stored: list[int]) -> str:
    missing = sample.absent[0] if sample.absent else None
    if len(sample.classes) == 1:
        return "name the background as a class too, such as classes=['background', ...], and write both in the masks"
    if sample.reduce_zero_label and 0 in stored:
        return (
            'reduce_zero_label=True ignores 0 and counts the classes from 1: leave it out where 0 is the first class, '
            'or write the other classes in the masks'
        )
    if IGNORED in stored and missing is not None:
        name = sample.classes[missing]
        return f'255 is ignored: where it stands for {name}, {_mapped(sample, missing)}'
    if sample.ignore_index != IGNORED and sample.ignore_index in stored:
        return f'ignore_index={sample.ignore_index} ignores a number that the masks consist of: set another'
    return 'write the numbers of at least two classes in the masks'


def _mapped(sample: SampledLabels, label: int) -> str:
    number = label + sample.reduce_zero_label
    own = sample.kind == 'ImageMaskFolders'
    numbers = [f'{name}={255 if number == label else number}' for number, name in enumerate(sample.classes)]
    key = f', or name the numbers: classes=dict({", ".join(numbers[:NAMED])})' if own else ''
    return f'write {number} in its place{key if not sample.reduce_zero_label else ""}'


def _stored(sample: SampledLabels) -> list[int]:
    """The numbers in the files that were read first."""
    return sorted({number for file in sample.files[:20] for number in stored_ids(file)})


def _looked_at(sample: SampledLabels) -> str:
    read, of = len(sample.files), sample.num_files
    if read == of:
        return f'the {of} masks in {sample.folder}' if of > 1 else f'the only mask in {sample.folder}'
    return f'{read} of the {of} masks in {sample.folder}'


def _names(sample: SampledLabels, labels: list[int]) -> str:
    names = [sample.classes[label] if label < len(sample.classes) else f'number {label}' for label in labels]
    more = f' and {len(names) - NAMED} more' if len(names) > NAMED else ''
    return f'{", ".join(names[:NAMED])}{more}'


def _listing(numbers: list[int]) -> str:
    shown = [str(number) for number in numbers[:8]]
    if len(numbers) > 8:
        return f'the numbers {", ".join(shown)}...'
    return f'the number {shown[0]}' if len(shown) == 1 else f'the numbers {", ".join(shown[:-1])} and {shown[-1]}'
