"""Your own data: a folder of images, a folder of masks and the names of the classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from tokenlabel.errors import UserError
from tokenlabel.files.folder_walk import IMAGE_SUFFIXES, find_files, report_skipped
from tokenlabel.files.reading import read_lines, read_names
from tokenlabel.pictures.labels import class_palette

MASK_SUFFIXES = ('.png', '.tif', '.tiff', '.bmp')
_LIST = ('The list of images', 'surrogateescape')  # names of files may be any bytes


@DATASETS.register_module()
class ImageMaskFolders(BaseSegDataset):
    """Images and masks that have the same name but for the suffix; subfolders count as part of the name.

    Every image must have a mask. Masks without an image are left alone, so that a list of names (`ann_file`) or a
    folder of images can be a part of the data, such as a validation set, with the masks of all in one folder.

    Args:
        classes: Names in the order of their ids, from 0 (with `reduce_zero_label` from 1); or a text file of them, one
            a line, below `data_root`. As MMSegmentation's own data sets have it, `metainfo.classes` says the same.
        palette: One RGB colour (0 to 255) per class, for pictures; distinct colours by default. `metainfo.palette`
            says the same.
        label_map: Id in the files -> id of the class, or 255 for what is not to be learned, where files number classes
            otherwise: `{255: 1}` for masks of 0 and 255. Ids that it does not name stay what they are.
        metainfo: Classes and palette, if they are not given by themselves, and what else the checkpoint should note.
        img_suffix: How the files of images may end, in any case. `'_photo.jpg'` is a suffix, too.
        seg_map_suffix: How the files of masks may end.
        data_prefix: `dict(img_path=..., seg_map_path=...)`, folders below `data_root`; without `seg_map_path` there are
            images alone, to predict on.
        ann_file: Text file below `data_root` of the images to take, one a line, with or without suffix. All by default.
        **kwargs: As mmseg's `BaseSegDataset`: `data_root`, `pipeline`, `reduce_zero_label`, `indices`...

    Raises:
        UserError: A folder or list is missing, there are no images, one has no mask, two have one name, or the classes
            are not 1 to 255 different names or given twice, or `label_map` names what is no class.
    """

    def __init__(
        self,
        classes: Sequence[str] | str | None = None,
        palette: Sequence[Sequence[int]] | None = None,
        label_map: Mapping[int, int] | None = None,
        metainfo: Mapping | None = None,
        img_suffix: str | Sequence[str] = IMAGE_SUFFIXES,
        seg_map_suffix: str | Sequence[str] = MASK_SUFFIXES,
        **kwargs,
    ) -> None:
        about = dict(metainfo or {})
        names = class_names(_once('classes', classes, about.pop('classes', None)), kwargs.get('data_root'))
        colours = _once('palette', palette, about.pop('palette', None)) or class_palette(len(names))
        colours = [list(colour) for colour in colours]
        if len(colours) != len(names):
            raise UserError(f'palette has {len(colours)} colours for {len(names)} classes: give one for each, or none.')
        self._class_of_id = _checked_map(label_map, len(names), kwargs.get('reduce_zero_label', False))
        super().__init__(
            metainfo=dict(about, classes=names, palette=colours),
            img_suffix=_suffixes(img_suffix),
            seg_map_suffix=_suffixes(seg_map_suffix),
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """One entry per image, in the natural order of their paths."""
        folder = self.data_prefix['img_path']
        images = _by_stem(folder, self.img_suffix, 'img_suffix')
        if self.ann_file:
            listed = self._listed(images)
            images = {name: path for name, path in images.items() if name in listed}
        if not images:
            raise UserError(
                f'{folder} holds no images ({", ".join(self.img_suffix)}): put them there, or set img_suffix.'
            )
        shared = dict(
            label_map=self._class_of_id,
            reduce_zero_label=self.reduce_zero_label,
            ignore_index=self.ignore_index,
            num_classes=len(self._metainfo['classes']),
        )
        samples = [dict(img_path=str(path), seg_fields=[], **shared) for path in images.values()]
        mask_folder = self.data_prefix.get('seg_map_path')
        if mask_folder is None:
            return samples
        masks = _by_stem(mask_folder, self.seg_map_suffix, 'seg_map_suffix')
        missing = [str(path) for name, path in images.items() if name not in masks]
        if missing:
            raise UserError(
                f'{len(missing)} of {len(images)} images in {folder} have no mask, such as {", ".join(missing[:3])}: '
                f'add files of the same name to {mask_folder}, or remove these images.'
            )
        return [dict(sample, seg_map_path=str(masks[name])) for sample, name in zip(samples, images, strict=True)]

    def _listed(self, images: dict[str, Path]) -> set[str]:
        """Names in the list of images, which all have to exist."""
        names = [_listed_name(line, self.img_suffix, images) for line in read_lines(self.ann_file, *_LIST) if line]
        absent = [name for name in names if name not in images]
        if absent:
            raise UserError(
                f'{self.ann_file} lists {len(absent)} images that are not in {self.data_prefix["img_path"]}, such as '
                f'{", ".join(absent[:3])}: correct the list, or add them.'
            )
        return set(names)


def class_names(classes: Sequence[str] | str | None, data_root: str | None = None) -> tuple[str, ...]:
    """Names of classes, given as such or as a text file of one name a line.

    Raises:
        UserError: The file cannot be read, or they are not 1 to 255 different names.
    """
    if classes is None:
        raise UserError('The data set has no classes: name them, classes=[...], in the order of their ids.')
    if isinstance(classes, str):
        classes = read_names(Path(data_root or '', classes), 'The list of classes')
    repeated = sorted({name for name in classes if list(classes).count(name) > 1})
    if repeated or not 1 <= len(classes) <= 255:
        reason = f'{repeated[0]!r} is named twice' if repeated else f'there are {len(classes)}'
        raise UserError(f'The data set wants 1 to 255 classes of different names, and {reason}: correct `classes`.')
    return tuple(classes)


def _once(key: str, given: Sequence | None, in_metainfo: Sequence | None) -> Sequence | None:
    """What is given, by itself or in `metainfo`."""
    if given is None or in_metainfo is None or list(given) == list(in_metainfo):
        return in_metainfo if given is None else given
    raise UserError(f'The data set has {key} and other metainfo.{key}: state one of them.')


def _checked_map(label_map: Mapping | None, num_classes: int, reduce_zero_label: bool) -> dict[int, int] | None:
    if label_map is None:
        return None
    if reduce_zero_label:
        raise UserError(
            'The data set has both label_map and reduce_zero_label: leave the latter out, and let label_map say what '
            'each id of the files is, {0: 255, 1: 0, 2: 1...}.'
        )
    for old, new in label_map.items():
        of_files = isinstance(old, int) and 0 <= old <= 255
        if not of_files or not isinstance(new, int) or not (0 <= new < num_classes or new == 255):
            raise UserError(
                f'label_map of the data set says {old!r}: {new!r}, where an id of 8 bits is mapped to a class, 0 to '
                f'{num_classes - 1}, or to 255: correct it.'
            )
    return dict(label_map)


def _suffixes(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _listed_name(line: str, suffixes: tuple[str, ...], images: dict[str, Path]) -> str:
    """The name of a listed image; `clip_2.0` may be that without suffix, and so may `a.png` where `a.png.jpg` is."""
    name = PurePosixPath(line).as_posix()  # `./a` is `a`
    return name if name in images else _stem(name, suffixes) or name


def _stem(name: str, suffixes: tuple[str, ...]) -> str | None:
    """`name` without the longest of the suffixes that it has; None where it has none."""
    ends = [suffix for suffix in suffixes if name.lower().endswith(suffix.lower())]
    return name[: -len(max(ends, key=len))] if ends else None


def _by_stem(folder: str, suffixes: tuple[str, ...], option: str) -> dict[str, Path]:
    """Files below a folder by their name without suffix, in natural order.

    Raises:
        UserError: The folder is missing, or two files have the same name.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f'{root} is missing: put the data set there, or name its place in the config.')
    files = find_files(root, suffixes)
    report_skipped(root, len(files.names), files.skipped, 'files')
    found = {}
    for file in files.names:
        name = _stem(file, suffixes)
        if name in found:
            raise UserError(f'{found[name]} and {root / file} have the same name: remove one of them, or set {option}.')
        found[name] = root / file
    return found
