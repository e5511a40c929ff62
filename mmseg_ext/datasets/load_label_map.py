"""Reads the class ids of an annotation and checks them."""

from pathlib import Path

import numpy as np
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import TRANSFORMS

from mmseg_ext.datasets.mask_classes import IGNORED, MaskClasses, counted_classes
from mmseg_ext.datasets.stored_files import open_stored
from tokenlabel.errors import UserError
from tokenlabel.image_files.reading import read_numbers, read_pixels
from tokenlabel.image_files.unreadable import because


@TRANSFORMS.register_module()
class LoadLabelMap(LoadAnnotations):
    """MMSegmentation's `LoadAnnotations`, with the same result for valid annotations and an error for invalid ones.

    Reads files of 8 or 16 bits, and palette files by their indices. MMSegmentation keeps only the low 8 bits of an id,
    and trains on ids outside the classes until the loss fails.

    Args:
        num_classes: Number of classes in the files, without the 0 that `reduce_zero_label` removes. None takes it from
            the data set, if this has it, as `ImageMaskFolders`; else ids up to 254 are allowed.
        ignore_index: Id to ignore in addition to 255; both are set to it. None takes it from the data set, if this has
            it, as `ImageMaskFolders`; else 255.
        backend_args: File backend, as MMEngine configures it.
    """

    def __init__(
        self, num_classes: int | None = None, ignore_index: int | None = None, backend_args: dict | None = None
    ) -> None:
        super().__init__(backend_args=backend_args)
        self.num_classes = num_classes
        self.ignore_index = ignore_index

    def _load_seg_map(self, results: dict) -> None:
        """Adds `gt_seg_map`, uint8 [H, W], at the original size of the image (`ori_shape`).

        Raises:
            UserError: As `read_label_map`.
        """
        ignored = results.get('ignore_index', IGNORED) if self.ignore_index is None else self.ignore_index
        label_map = tuple((results.get('label_map') or {}).items())
        results['gt_seg_map'] = read_label_map(
            results['seg_map_path'],
            results.get('mask_classes')
            or counted_classes(self.num_classes, results['reduce_zero_label'], label_map, ignored),
            shape=results.get('ori_shape'),
            backend_args=self.backend_args,
            ignore_index=ignored,
        )
        results['seg_fields'].append('gt_seg_map')

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(num_classes={self.num_classes}, ignore_index={self.ignore_index}, '
            f'backend_args={self.backend_args})'
        )


def read_label_map(
    path: str | Path,
    classes: MaskClasses,
    shape: tuple[int, int] | None = None,
    backend_args: dict | None = None,
    ignore_index: int = IGNORED,
) -> np.ndarray:
    """The class of each pixel of an annotation, uint8 [H, W], with `ignore_index` for ignored pixels.

    Args:
        path: Picture of one channel (ids in 8 or 16 bits, or palette indices), or in colour if the classes have
            colours.
        classes: Classes of its numbers or colours.
        shape: Required (height, width) in pixels, that of its image.
        backend_args: File backend, as MMEngine configures it.
        ignore_index: Ignored label in the result.

    Raises:
        UserError: The file is missing, damaged or of another size, or holds a colour or id that is not a class.
    """
    stored = read_stored(path, backend_args, in_colour=bool(classes.colours))
    if stored.ndim != 2 and not classes.colours:
        raise UserError(
            f'Annotation {path} is a colour picture ({stored.shape[2]} channels) where one channel of class ids is '
            "expected: name the colours, classes=dict(road='#804080', ...), or convert it to ids."
        )
    if shape is not None and stored.shape[:2] != tuple(shape[:2]):
        raise UserError(
            f'Annotation {path} is {stored.shape[1]}x{stored.shape[0]} and its image {shape[1]}x{shape[0]} (width x '
            'height, as the image is shown): make the two of one size, or remove them.'
        )
    labels = classes.labels(stored, path)
    if ignore_index != IGNORED:
        labels[labels == IGNORED] = ignore_index
    return labels


def stored_ids(path: str | Path, backend_args: dict | None = None) -> dict[int, int]:
    """Number of pixels of each stored id in a single-channel annotation; empty for a colour annotation.

    Raises:
        UserError: As `read_label_map`, of a file that cannot be read.
    """
    stored = read_stored(path, backend_args)
    ids, counts = np.unique(stored if stored.ndim == 2 else [], return_counts=True)
    return dict(zip(ids.tolist(), counts.tolist(), strict=True))


def read_stored(path: str | Path, backend_args: dict | None = None, in_colour: bool = False) -> np.ndarray:
    """Pixels of an annotation as stored, uint8 or wider [H, W]; RGB, uint8 [H, W, 3], with `in_colour`.

    Raises:
        UserError: As `read_label_map`, of a file that cannot be read.
    """
    try:
        with open_stored(path, backend_args) as stream:
            stored, lossy = read_numbers(stream)
            if in_colour and lossy is None:
                stored = read_pixels(stream)
    except FileNotFoundError as error:
        raise UserError(f'Annotation {path} is missing: add it, or remove its image.') from error
    except OSError as error:
        raise UserError(f'Annotation {path} cannot be read as a picture {because(error)}.') from error
    if lossy is not None:
        raise UserError(
            f'Annotation {path} is compressed as {lossy}, which changes ids at class borders: create it again as PNG.'
        )
    if stored.dtype.kind not in 'bui' or (stored.dtype.kind == 'i' and stored.min() < 0):
        raise UserError(f'Annotation {path} holds {stored.dtype} numbers where class ids from 0 on are expected.')
    return stored.astype(np.uint8) if stored.dtype == bool else stored
