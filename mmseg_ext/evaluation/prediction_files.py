"""Files of predictions, named by the path of their image below the image folder."""

import io
import os
from pathlib import Path

import numpy as np
from mmengine.structures import BaseDataElement
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from tokenlabel.errors import UserError
from tokenlabel.files.output_names import output_name
from tokenlabel.files.writing import write_atomically


class ImagePlaces:
    """Paths of images relative to their image folder.

    Args:
        dataset: Data set with the image folder, or a wrapper of data sets with a common one; None if unknown.
    """

    def __init__(self, dataset: Dataset | None = None) -> None:
        folders = {os.path.abspath(folder) for folder in _image_folders(dataset)}
        self._folder = os.path.commonpath(folders) if folders else None

    def of(self, path: str) -> str:
        """The path of an image relative to the folder, or its file name if it is elsewhere."""
        place = os.path.relpath(path, self._folder) if self._folder else os.path.basename(path)
        return os.path.basename(path) if place.startswith('..') else place


class WritesPredictions:
    """For a metric with an `output_dir`: class numbers as PNG files of 8 bits, or 16 for more than 255 classes."""

    _places: ImagePlaces | None = None
    _written: dict[str, str] | None = None

    def name_images_of(self, dataset: Dataset) -> None:
        """Names predictions by the images' paths below the image folder of a data set."""
        self._places = ImagePlaces(dataset)

    def write_labels(self, labels: Tensor, sample: BaseDataElement | dict) -> None:
        """Writes the predicted classes [H, W] of an image, numbered as on disk.

        Raises:
            UserError: Another image has the same name.
        """
        numbers = labels.cpu().numpy() + bool(sample.get('reduce_zero_label', False))
        dtype = np.uint8 if len(self.dataset_meta['classes']) <= 255 else np.uint16
        picture = io.BytesIO()
        Image.fromarray(numbers.astype(dtype)).save(picture, 'PNG')
        write_atomically(Path(self.output_dir, self._name(sample.get('img_path'))), picture.getvalue())

    def _name(self, path: str) -> str:
        name = output_name((self._places or ImagePlaces()).of(path), '.png')
        self._written = {} if self._written is None else self._written
        if self._written.setdefault(name, path) != path:
            raise UserError(
                f'{self._written[name]} and {path} would both be written to {Path(self.output_dir, name)}: rename one '
                'of them, or evaluate them separately.'
            )
        return name


def _image_folders(dataset: Dataset | None) -> list[str]:
    """The image folders of a data set and of the data sets that it wraps."""
    inner = [*getattr(dataset, 'datasets', ()), *([dataset.dataset] if hasattr(dataset, 'dataset') else ())]
    if inner:
        return [folder for one in inner for folder in _image_folders(one)]
    folder = (getattr(dataset, 'data_prefix', None) or {}).get('img_path')
    return [folder] if folder else []
