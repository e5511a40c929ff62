"""Reading the class ids of an annotation, and saying so where they cannot be right."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import TRANSFORMS

from mmseg_ext.datasets.stored_files import open_stored
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
        ignore_index: Id that is not to be learned, beside 255, and what both become. None: what the data set says, as
            `ImageMaskFolders` does; else 255.
        backend_args: File backend, as MMEngine configures it.
    """

    def __init__(
        self, num_classes: int | None = None, ignore_index: int | None = None, backend_args: dict | None = None
    ) -> None:
        super().__init__(backend_args=backend_args)
        self.num_classes = num_classes
        self.ignore_index = ignore_index

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
            ignore_index=results.get('ignore_index', IGNORED) if self.ignore_index is None else self.ignore_index,
        )
        results['seg_fields'].append('gt_seg_map')

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(num_classes={self.num_classes}, ignore_index={self.ignore_index}, '
            f'backend_args={self.backend_args})'
        )


def read_label_map(
    path: str | Path,
    num_classes: int | None = None,
    reduce_zero_label: bool = False,
    label_map: Mapping[int, int] | None = None,
    shape: tuple[int, int] | None = None,
    backend_args: dict | None = None,
    ignore_index: int = IGNORED,
) -> np.ndarray:
    """An annotation as the classes of its pixels, uint8 [H, W], with `ignore_index` where nothing is to be learned.

    Args:
        path: Picture of one channel: ids in 8 or 16 bits, or indices of a palette.
        num_classes: Ids that count, after `reduce_zero_label`; None for up to 255.
        reduce_zero_label: A stored 0 is ignored and the classes count from 1.
        label_map: Class in the file -> class (or 255 for none), for data sets of which some classes are chosen
            or whose files number them otherwise.
        shape: Height and width that it must have, those of its image, in pixels.
        backend_args: File backend, as MMEngine configures it.
        ignore_index: Class in the file that is ignored, beside 255, and what is ignored in the result.

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
    table, is_known = _table(num_classes, reduce_zero_label, label_map, ignore_index)
    if stored.dtype != np.uint8 and stored.max() > IGNORED:
        _refuse(path, stored, is_known, num_classes, reduce_zero_label, ignore_index)
    ids = stored.astype(np.uint8, copy=False)
    if not cv2.LUT(ids, is_known).all():
        _refuse(path, stored, is_known, num_classes, reduce_zero_label, ignore_index)
    return cv2.LUT(ids, table)


def stored_ids(path: str | Path, backend_args: dict | None = None) -> dict[int, int]:
    """How many pixels of an annotation hold each id, as it is stored.

    Raises:
        UserError: As `read_label_map`, of a file that cannot be read.
    """
    ids, counts = np.unique(_read(path, backend_args), return_counts=True)
    return dict(zip(ids.tolist(), counts.tolist(), strict=True))


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
    num_classes: int | None, reduce_zero_label: bool, label_map: Mapping[int, int] | None, ignore_index: int
) -> tuple[np.ndarray, np.ndarray]:
    """For each id from 0 to 255: its class or `ignore_index`, uint8, and whether it may occur, uint8."""
    classes = np.arange(256) - reduce_zero_label
    classes[IGNORED] = IGNORED
    is_class = (classes >= 0) & (classes < min(num_classes or IGNORED, IGNORED))
    is_ignored = (classes == IGNORED) | (classes == ignore_index) | (classes < 0)
    table = np.where(is_class, classes, ignore_index)
    is_mapped = np.zeros(256, bool)
    for old, new in (label_map or {}).items():
        table[classes == old] = ignore_index if new == IGNORED else new
        is_mapped |= classes == old
    return table.astype(np.uint8), (is_class | is_ignored | is_mapped).astype(np.uint8)


def _refuse(
    path: str | Path,
    stored: np.ndarray,
    is_known: np.ndarray,
    num_classes: int | None,
    reduce_zero_label: bool,
    ignore_index: int,
) -> None:
    ids, counts = np.unique(stored, return_counts=True)
    is_wrong = (ids > IGNORED) | (is_known[np.minimum(ids, IGNORED)] == 0)
    wrong = [str(number) for number in ids[is_wrong]]
    first, last = int(reduce_zero_label), min(num_classes or IGNORED, IGNORED) - 1 + reduce_zero_label
    ignored = {IGNORED, *([0, ignore_index + 1] if reduce_zero_label else [ignore_index])}
    ignored = sorted(number for number in ignored if number <= IGNORED)
    remedy = 'correct the file, or the classes of the data set, of LoadLabelMap and of the heads'
    if wrong == [str(last + 1)] and not reduce_zero_label:
        remedy += (
            f'; where {last + 1} marks what is not labelled, set ignore_index={last + 1} for the data set; where the '
            f'classes are 1 to {last + 1}, reduce_zero_label=True'
        )
    raise UserError(
        f'Annotation {path} holds id {", ".join(wrong[:5])}{"..." * (len(wrong) > 5)} in {counts[is_wrong].sum()} '
        f'pixels, but the classes are {first} to {last} ({" and ".join(map(str, ignored))} '
        f'{"are" if len(ignored) > 1 else "is"} ignored): {remedy}.'
    )
