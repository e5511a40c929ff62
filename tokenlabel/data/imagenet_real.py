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
    """The right classes of each image of `dataset`, in the numbers of a model's classes.

    Images are known by their names, ILSVRC2012_val_00000001 and on, in whatever layout they lie.

    Args:
        dataset: images of ImageNet's validation set, all or some.
        class_names: of the model, WordNet ids; None where they are not known.
        num_classes: of the model.
        file: JSON of one list of classes for each image, as google-research/reassessed-imagenet has it (`real.json`);
            None for the copy that comes with timm.

    Raises:
        UserError: the file is missing or holds something else, the model has other classes than ImageNet-1k, or an
            image has another name.
    """
    labels = _read(file)
    numbers = match_classes(ImageNetInfo('imagenet-1k').label_names(), NUM_CLASSES, class_names, num_classes)
    if (numbers < 0).any() or num_classes != NUM_CLASSES:
        raise UserError(
            f"ReaL labels are of ImageNet's {NUM_CLASSES} classes and the model has {num_classes} others: leave out "
            '--real.'
        )
    right = []
    for index in range(len(dataset)):
        name = re.fullmatch(r'(?:.*/)?ILSVRC2012_val_(\d{8})(?:_n\d{8})?\.\w+', dataset.key(index))
        if name is None or not 1 <= int(name[1]) <= len(labels):
            raise UserError(
                f'{dataset.root} holds {dataset.key(index)}, which the ReaL labels do not know: they are of '
                f'ILSVRC2012_val_00000001 to {len(labels):08d}.'
            )
        right.append([int(numbers[label]) for label in labels[int(name[1]) - 1]])
    if not any(right):
        raise UserError(f'No image of {dataset.root} has a ReaL label: evaluate on more of the validation set.')
    return right


def _read(file: str | Path | None) -> list[list[int]]:
    if file is None:
        with as_file(files('timm.data') / '_info' / 'imagenet_real_labels.json') as source:
            return read_json(source)
    labels = read_json(file, 'ReaL labels')

    def are_classes(of: object) -> bool:
        return isinstance(of, list) and all(type(x) is int and 0 <= x < NUM_CLASSES for x in of)

    if not isinstance(labels, list) or not all(map(are_classes, labels)):
        raise UserError(
            f'{file} holds no ReaL labels: give a JSON list that has, for each image, the list of its classes, 0 '
            f'to {NUM_CLASSES - 1}.'
        )
    return labels
