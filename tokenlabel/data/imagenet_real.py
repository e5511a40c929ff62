"""ImageNet-ReaL: the reassessed labels of ImageNet's validation images, several per image or none."""

import re
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path

from timm.data import ImageNetInfo

from tokenlabel.data.images import LabeledImages
from tokenlabel.errors import UserError
from tokenlabel.files.reading import read_json
from tokenlabel.labels.class_map import match_classes

NUM_CLASSES = 1000


def real_labels(
    dataset: LabeledImages, class_names: Sequence[str] | None, num_classes: int, file: str | Path | None = None
) -> list[list[int]]:
    """The correct classes of each image of `dataset`, in the model's class numbering.

    Images are identified by their file names, ILSVRC2012_val_00000001 and so on, in any folder layout.

    Args:
        dataset: images of ImageNet's validation set, all or some.
        class_names: WordNet ids of the model's classes; None if unknown.
        num_classes: number of the model's classes.
        file: JSON with one list of classes per image, as google-research/reassessed-imagenet publishes it
            (`real.json`); None for the copy in timm.

    Raises:
        UserError: the file is missing or has no ReaL labels, the model's classes are not those of ImageNet-1k, an image
            has another name, or no image has a label.
    """
    labels = _read(file)
    numbers = match_classes(ImageNetInfo('imagenet-1k').label_names(), NUM_CLASSES, class_names, num_classes)
    if (numbers < 0).any() or num_classes != NUM_CLASSES:
        raise UserError(
            f"ReaL labels need ImageNet's {NUM_CLASSES} classes, but the model has {num_classes} other classes: leave "
            'out --real.'
        )
    correct = []
    for index in range(len(dataset)):
        name = re.fullmatch(r'(?:.*/)?ILSVRC2012_val_(\d{8})(?:_n\d{8})?\.\w+', dataset.key(index))
        if name is None or not 1 <= int(name[1]) <= len(labels):
            raise UserError(
                f'{dataset.root} holds {dataset.key(index)}, which the ReaL labels do not know: they are of '
                f'ILSVRC2012_val_00000001 to {len(labels):08d}.'
            )
        correct.append([int(numbers[label]) for label in labels[int(name[1]) - 1]])
    if not any(correct):
        raise UserError(f'No image of {dataset.root} has a ReaL label: evaluate on more of the validation set.')
    return correct


def _read(file: str | Path | None) -> list[list[int]]:
    if file is None:
        with as_file(files('timm.data') / '_info' / 'imagenet_real_labels.json') as source:
            return read_json(source)
    labels = read_json(file, 'ReaL labels')

    def are_classes(values: object) -> bool:
        return isinstance(values, list) and all(type(x) is int and 0 <= x < NUM_CLASSES for x in values)

    if not isinstance(labels, list) or not all(map(are_classes, labels)):
        raise UserError(
            f'{file} holds no ReaL labels: give a JSON list that has, for each image, the list of its classes, 0 '
            f'to {NUM_CLASSES - 1}.'
        )
    return labels
