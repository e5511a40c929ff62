"""Your own data: a folder of images, a folder of masks and the names of the classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from mmseg_ext.datasets.mask_classes import IGNORED, Value, mask_classes
from tokenlabel.errors import UserError
from tokenlabel.files.folder_walk import IMAGE_SUFFIXES, find_files, report_skipped
from tokenlabel.files.reading import read_lines

MASK_SUFFIXES = ('.png', '.tif', '.tiff', '.bmp')
_LIST = ('The list of images', 'surrogateescape')  # names of files may be any bytes


@DATASETS.register_module()
class ImageMaskFolders(BaseSegDataset):
    """Images and masks with the same name except for the suffix; subfolders are part of the name.

    Every image must have a mask. Masks without an image are ignored, so a list of names (`ann_file`) or a folder of
    images can be a subset of the data, such as a validation set, while all masks are in one folder.

    Args:
        classes: Names in the order of their ids, from 0 (with `reduce_zero_label` from 1); or names with their ids,
            colours, or lists of these: `dict(sky=0, road=[3, 4], car='#400080', foreground=255)`; or a text file
            below `data_root`, see `mask_classes`. `metainfo.classes` is equivalent, as in MMSegmentation's data sets.
        ignore: Ids or colours to ignore in addition to 255, such as `[11]`.
        others: Treatment of ids and colours that are not named: 'error', 'ignore', or the name of a class.
        palette: One RGB colour (0 to 255) per class, for pictures. By default the classes' colours in the masks, or
            distinct ones. `metainfo.palette` is equivalent.
        metainfo: Classes and palette, unless given as arguments, and other metadata for the checkpoint.
        img_suffix: Suffixes of image files, case-insensitive, such as '.png' or '_photo.jpg'. If a config sets
            `model.in_channels`, the default also contains `.npy`.
        seg_map_suffix: Suffixes of mask files.
        data_prefix: `dict(img_path=..., seg_map_path=...)`, folders below `data_root`; omit `seg_map_path` for images
            without masks, to predict on.
        ann_file: Text file below `data_root` with the images to use, one per line, with or without suffix; by default
            all images are used.
        **kwargs: Other arguments of mmseg's `BaseSegDataset`: `data_root`, `pipeline`, `reduce_zero_label`,
            `indices`...

    Raises:
        UserError: A folder or list is missing, there are no images, an image has no mask, two images have the same
            name, or as `mask_classes`.
    """

    def __init__(
        self,
        classes: Sequence[str] | Mapping[str, Any] | str | None = None,
        ignore: Sequence[Value] | Value = (),
        others: str = 'error',
        palette: Sequence[Sequence[int]] | None = None,
        metainfo: Mapping | None = None,
        img_suffix: str | Sequence[str] = IMAGE_SUFFIXES,
        seg_map_suffix: str | Sequence[str] = MASK_SUFFIXES,
        **kwargs,
    ) -> None:
        about = dict(metainfo or {})
        ignored = kwargs.get('ignore_index', IGNORED)
        self.mask_classes = mask_classes(
            _once('classes', classes, about.pop('classes', None)),
            [*(ignore if isinstance(ignore, (list, tuple)) else [ignore]), *([ignored] if ignored != IGNORED else [])],
            others,
            kwargs.get('data_root'),
            kwargs.get('reduce_zero_label', False),
        )
        names = self.mask_classes.names
        colours = _once('palette', palette, about.pop('palette', None)) or self.mask_classes.palette()
        colours = [list(colour) for colour in colours]
        if len(colours) != len(names):
            raise UserError(f'palette has {len(colours)} colours for {len(names)} classes: give one for each, or none.')
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
            mask_classes=self.mask_classes,
            label_map=None,
            reduce_zero_label=self.reduce_zero_label,
            ignore_index=self.ignore_index,
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
        """Names in the list of images; all of these images must exist."""
        names = [_listed_name(line, self.img_suffix, images) for line in read_lines(self.ann_file, *_LIST) if line]
        absent = [name for name in names if name not in images]
        if absent:
            raise UserError(
                f'{self.ann_file} lists {len(absent)} images that are not in {self.data_prefix["img_path"]}, such as '
                f'{", ".join(absent[:3])}: correct the list, or add them.'
            )
        return set(names)


def _once(key: str, given: Any, in_metainfo: Any) -> Any:
    """The value of a setting given as an argument or in `metainfo`; different values are an error."""
    if given is None or in_metainfo is None or given == in_metainfo or list(given) == list(in_metainfo):
        return in_metainfo if given is None else given
    raise UserError(f'The data set has {key} and a different metainfo.{key}: set only one of them.')


def _suffixes(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _listed_name(line: str, suffixes: tuple[str, ...], images: dict[str, Path]) -> str:
    """The name of a listed image; a line such as `clip_2.0`, or `a.png` for `a.png.jpg`, may be without suffix."""
    name = PurePosixPath(line).as_posix()  # `./a` is `a`
    return name if name in images else _stem(name, suffixes) or name


def _stem(name: str, suffixes: tuple[str, ...]) -> str | None:
    """`name` without its longest matching suffix; None if none matches."""
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
