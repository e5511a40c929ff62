"""Reading the class ids of an annotation, and saying so where they cannot be right."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import TRANSFORMS

from mmseg_ext.stored_files import open_stored
from tokenlabel.errors import UserError
from tokenlabel.image_files.reading import read_numbers
from tokenlabel.image_files.unreadable import because

IGNORED = 255  # what MMSegmentation's losses and metrics leave out


@TRANSFORMS.register_module()
class LoadLabelMap(LoadAnnotations):
    """MMSegmentation's `LoadAnnotations`, with the same result for annotations that are right and an error for others.

    Files of 8 or 16 bits and of palette colours (whose indices count) are read in full; MMSegmentation keeps the low 8
    bits of an id, and trains on ids beyond the classes until the loss fails.

    Args:
        num_classes: Classes that the files count, without the 0 that `reduce_zero_label` takes away. None: what the
            data set says, as `ImageMaskFolders` does; else any id up to 254 passes.
        backend_args: File backend, as MMEngine configures it.
    """

    def __init__(self, num_classes: int | None = None, backend_args: dict | None = None) -> None:
        super().__init__(backend_args=backend_args)
        self.num_classes = num_classes

    def _load_seg_map(self, results: dict) -> None:
        """Adds `gt_seg_map`, uint8 [H, W], of the size that the image has in its file (`ori_shape`).

        Raises:
            UserError: As `read_label_map`.
        """
        results['gt_seg_map'] = read_label_map(
            results['seg_map_path'],
            self.num_classes or results.get('num_classes'),
            results['reduce_zero_label'],
            results.get('label_map'),
            shape=results.get('ori_shape'),
            backend_args=self.backend_args,
        )
        results['seg_fields'].append('gt_seg_map')

    def __repr__(self) -> str:
        return f'{type(self).__name__}(num_classes={self.num_classes}, backend_args={self.backend_args})'


def read_label_map(
    path: str | Path,
    num_classes: int | None = None,
    reduce_zero_label: bool = False,
    label_map: Mapping[int, int] | None = None,
    shape: tuple[int, int] | None = None,
    backend_args: dict | None = None,
) -> np.ndarray:
    """An annotation as the classes of its pixels, uint8 [H, W], with 255 where nothing is to be learned.

    Args:
        path: Picture of one channel: ids in 8 or 16 bits, or indices of a palette.
        num_classes: Ids that count, after `reduce_zero_label`; None for up to 255.
        reduce_zero_label: A stored 0 is ignored and the classes count from 1.
        label_map: Class in the file -> class wanted (or 255), for data sets of which some classes are chosen.
        shape: Height and width that it must have, those of its image, in pixels.
        backend_args: File backend, as MMEngine configures it.

    Raises:
        UserError: The file is missing or broken, in colours, of another size, or holds an id that is no class.
    """
    stored = _read(path, backend_args)
    if stored.ndim != 2:
        raise UserError(
            f'Annotation {path} is a colour picture ({stored.shape[2]} channels) where one channel of class ids is '
            'expected: convert its colours to ids.'
        )
    if shape is not None and stored.shape != tuple(shape[:2]):
        raise UserError(
            f'Annotation {path} is {stored.shape[1]}x{stored.shape[0]} and its image {shape[1]}x{shape[0]} (width x '
            'height, as the image is shown): make the two of one size, or remove them.'
        )
    table, is_known = _table(num_classes, reduce_zero_label, label_map)
    if stored.dtype != np.uint8 and stored.max() > IGNORED:
        _refuse(path, stored, is_known, num_classes, reduce_zero_label)
    ids = stored.astype(np.uint8, copy=False)
    if not cv2.LUT(ids, is_known).all():
        _refuse(path, stored, is_known, num_classes, reduce_zero_label)
    return cv2.LUT(ids, table)


def _read(path: str | Path, backend_args: dict | None) -> np.ndarray:
    """Pixels of a picture as they are stored, uint8 or wider."""
    try:
        with open_stored(path, backend_args) as stream:
            stored, lossy = read_numbers(stream)
    except FileNotFoundError as error:
        raise UserError(f'Annotation {path} is missing: add it, or remove its image.') from error
    except OSError as error:
        raise UserError(f'Annotation {path} cannot be read as a picture {because(error)}.') from error
    if lossy is not None:
        raise UserError(
            f'Annotation {path} is compressed as {lossy}, which changes ids where classes meet: make it anew as PNG.'
        )
    if stored.dtype.kind not in 'bui' or (stored.dtype.kind == 'i' and stored.min() < 0):
        raise UserError(f'Annotation {path} holds {stored.dtype} numbers where class ids from 0 on are expected.')
    return stored


def _table(
    num_classes: int | None, reduce_zero_label: bool, label_map: Mapping[int, int] | None
) -> tuple[np.ndarray, np.ndarray]:
    """For each id from 0 to 255: its class, uint8, and whether it may occur, uint8."""
    classes = np.arange(256) - reduce_zero_label
    classes[IGNORED] = IGNORED
    is_class = (classes >= 0) & (classes < min(num_classes or IGNORED, IGNORED))
    classes[~is_class] = IGNORED
    is_known = is_class.astype(np.uint8)
    is_known[[0, IGNORED] if reduce_zero_label else IGNORED] = 1
    table = classes.astype(np.uint8)
    for old, new in (label_map or {}).items():
        table[classes == old] = new
    return table, is_known


def _refuse(
    path: str | Path, stored: np.ndarray, is_known: np.ndarray, num_classes: int | None, reduce_zero_label: bool
) -> None:
    ids, counts = np.unique(stored, return_counts=True)
    is_wrong = (ids > IGNORED) | (is_known[np.minimum(ids, IGNORED)] == 0)
    wrong = [str(number) for number in ids[is_wrong]]
    first, last = int(reduce_zero_label), min(num_classes or IGNORED, IGNORED) - 1 + reduce_zero_label
    raise UserError(
        f'Annotation {path} holds id {", ".join(wrong[:5])}{"..." * (len(wrong) > 5)} in {counts[is_wrong].sum()} '
        f'pixels, but the classes are {first} to {last} ({"0 and 255 are" if reduce_zero_label else "255 is"} '
        'ignored): correct the file, or the classes of the data set, of LoadLabelMap and of the heads.'
    )
