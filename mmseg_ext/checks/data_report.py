"""The data report, written before training: contents of a segmentation data set as `data.md` and `data.png`."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from mmengine.config import Config
from mmseg.datasets import BaseSegDataset
from PIL import Image

from mmseg_ext.checks.config_parts import SPLITS, datasets_of
from mmseg_ext.checks.datasets import built_dataset, classes_in_files, evenly_spread, is_stored_here
from mmseg_ext.checks.in_channels import (
    MEASURED_IMAGES,
    as_lines,
    in_channels_of,
    measured_statistics,
    settle_in_channels,
)
from mmseg_ext.checks.mask_shift import NUM_LOOKED_AT, Shift, edge_sums, shift_of
from mmseg_ext.checks.num_classes import settle_num_classes
from mmseg_ext.datasets.load_label_map import read_stored
from mmseg_ext.datasets.mask_classes import IGNORED, MaskClasses, counted_classes
from mmseg_ext.datasets.read_image import read_image, read_picture, read_size
from mmseg_ext.datasets.stored_files import open_stored
from tokenlabel.errors import UserError
from tokenlabel.files.writing import write_atomically
from tokenlabel.image_files.reading import stored_bits
from tokenlabel.pictures.labels import save_figure, segmentation_figure

MOST_MASKS = 2000  # masks read of each split, evenly spread
FEW_IMAGES = 3  # a class in fewer images gets a warning
NUM_SHOWN = 8  # images in the picture
NUM_NAMED = 3  # files in a warning
SHOWN_SIDE = 512  # pixels


@dataclass
class SplitReport:
    """Contents of the images and masks of a split.

    Attributes:
        split: `train`, `val` or `test`.
        folder: Folder of the images.
        classes: Names of the classes.
        palette: RGB colour of each class.
        mask_classes: Conversion of masks to classes.
        num_images: Number of images.
        files: (image, mask) pairs that were read, evenly spread over the split.
        pixels: Pixels of each class and, last, ignored pixels, int64 [C + 1].
        images: Number of masks that contain each class, int64 [C].
        ignored: Ignored ids or colours and their number of pixels.
        sizes: (width, height) of the images and how often it occurs.
        faults: One sentence for each unusable mask.
        shared: Images that are also in the training split.
        in_channels: Number of channels that images are read with, unchanged; None for 8-bit RGB.
        statistics: Mean and standard deviation of each of these channels in the training split; None for RGB.
        deep: Images with more than 8 bits that are read with 8.
        shift: Shift that would align masks and images, if most images agree on one.
    """

    split: str
    folder: str
    classes: tuple[str, ...]
    palette: list[tuple[int, int, int]]
    mask_classes: MaskClasses
    num_images: int
    files: list[tuple[str, str]]
    pixels: np.ndarray
    images: np.ndarray
    ignored: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)
    in_channels: int | None = None
    statistics: tuple[list[float], list[float]] | None = None
    deep: list[str] = field(default_factory=list)
    shift: Shift | None = None

    @property
    def remarks(self) -> list[str]:
        """Warnings, one sentence each."""
        said = [*self.faults[:NUM_NAMED]]
        if len(self.faults) > NUM_NAMED:
            said.append(f'{len(self.faults) - NUM_NAMED} more masks are unusable.')
        if self.shift is not None:
            said.append(
                f'Masks seem shifted: moved {self.shift}, the masks of {self.shift.agreeing} of '
                f'{self.shift.num_images} images fit the edges in the images better.'
            )
        if self.deep:
            said.append(
                f'{len(self.deep)} images have more than 8 bits, such as {Path(self.deep[0]).name}, but only the upper '
                '8 are used: set model.in_channels=1 (3 for colour) to use them all.'
            )
        occurring = np.flatnonzero(self.images)
        if len(occurring) == 1 and len(self.classes) > 1:
            said.append(f'All masks contain only {self.classes[occurring[0]]}.')
        absent = [name for name, count in zip(self.classes, self.images, strict=True) if not count]
        if absent:
            said.append(f'Classes in no mask: {", ".join(absent)}.')
        if self.split == 'train':
            rare = [name for name, count in zip(self.classes, self.images, strict=True) if 0 < count < FEW_IMAGES]
            if rare:
                said.append(f'Classes in fewer than {FEW_IMAGES} images, too few to learn from: {", ".join(rare)}.')
        share = self.pixels[-1] / max(self.pixels.sum(), 1)
        if share > 0.5:
            said.append(f'{100 * share:.0f} % of the pixels are ignored.')
        if self.shared:
            named = ', '.join(Path(path).name for path in self.shared[:NUM_NAMED])
            said.append(
                f'{len(self.shared)} images are also in the training split, such as {named}: scores on them say little.'
            )
        return said


def data_report(config: Config) -> list[SplitReport]:
    """Reads the images and masks of a config.

    Args:
        config: A segmentation config; its `custom_imports` must be imported already.

    Raises:
        UserError: As `settle_num_classes` and `settle_in_channels`, or none of its folders exists.
    """
    settle_num_classes(config)
    settle_in_channels(config)
    reports, seen = [], []
    for split in SPLITS:
        for dataset, place, wraps in datasets_of(config, split):
            key = [dataset.get(name) for name in ('type', 'data_root', 'data_prefix', 'ann_file')]
            if wraps or key in seen or not is_stored_here(dataset):
                continue
            seen.append(key)
            built = built_dataset(dataset, place)
            if isinstance(built, BaseSegDataset) and built.data_list:
                reports.append(_read(split, built, in_channels_of(config)))
    if not reports:
        raise UserError('None of the data folders in the config exists: put the data there, or correct the paths.')
    trained = [report for report in reports if report.split == 'train']
    for report in reports:
        if report.split != 'train':
            report.shared = [path for one in trained for path in _shared(one.files, report.files)]
    return reports


def write_data_report(config: Config, folder: str | Path) -> list[SplitReport]:
    """Writes `data.md` and `data.png` of a config's data; returns the reports.

    Raises:
        UserError: As `data_report`, or the folder cannot be written to.
    """
    reports, folder = data_report(config), Path(folder)
    write_atomically(folder / 'data.md', as_markdown(reports))
    if figure := _figure(reports[0]):
        save_figure(figure, folder / 'data.png')
    return reports


def as_markdown(reports: Sequence[SplitReport]) -> str:
    """The report as Markdown: tables and warnings."""
    lines = ['# Data', '']
    for report in reports:
        read = len(report.files)
        some = f', of which {read} were read' if read < report.num_images else ''
        lines += [f'## {report.split}: {report.num_images} images in {report.folder}{some}', '']
        sizes = ', '.join(f'{width}x{height} ({count})' for (width, height), count in report.sizes.most_common(5))
        more = f' and {len(report.sizes) - 5} more sizes' if len(report.sizes) > 5 else ''
        lines += [f'Width x height: {sizes}{more}.', '']
        if report.statistics is not None:
            lines += [f'{report.in_channels} channels. For `model.data_preprocessor`:', '', '```python']
            lines += [*as_lines(*report.statistics), '```', '']
        lines += [f'- **Warning.** {remark}' for remark in report.remarks] + [''] * bool(report.remarks)
        lines += ['| class | colour | pixels, % | images |', '|---|---|---:|---:|']
        total = max(int(report.pixels.sum()), 1)
        for name, colour, pixels, images in zip(
            report.classes, report.palette, report.pixels, report.images, strict=False
        ):
            lines.append(f'| {name} | #{bytes(colour).hex()} | {100 * pixels / total:.2f} | {images} |')
        values = ', '.join(value for value, _ in report.ignored.most_common(8))
        lines += [f'| ignored{f" ({values})" if values else ""} | | {100 * report.pixels[-1] / total:.2f} | |', '']
    return '\n'.join(lines)


def _read(split: str, built: BaseSegDataset, in_channels: int | None) -> SplitReport:
    samples = [sample for sample in built.data_list if 'seg_map_path' in sample]
    chosen = tuple((built.label_map or {}).items())
    counted = counted_classes(classes_in_files(built), built.reduce_zero_label, chosen, built.ignore_index)
    classes = getattr(built, 'mask_classes', counted)
    names = tuple(built.metainfo.get('classes') or classes.names)
    palette = [tuple(colour) for colour in built.metainfo.get('palette') or classes.palette()]
    files = [(sample['img_path'], sample['seg_map_path']) for sample in evenly_spread(samples, MOST_MASKS)]
    report = SplitReport(
        split,
        str(built.data_prefix.get('img_path')),
        names,
        palette,
        classes,
        len(built.data_list),
        files,
        np.zeros(len(names) + 1, np.int64),
        np.zeros(len(names), np.int64),
        in_channels=in_channels,
    )
    with ThreadPoolExecutor() as pool:
        counted = pool.map(lambda pair: _counted(*pair, classes, len(names), in_channels), files)
        for size, counts, ignored, fault in counted:
            if fault:
                report.faults.append(fault)
                continue
            report.sizes[size] += 1
            report.pixels += counts
            report.images += counts[:-1] > 0
            report.ignored.update(ignored)
        sums = pool.map(lambda pair: _edges(*pair, classes, in_channels), evenly_spread(files, NUM_LOOKED_AT))
        report.shift = shift_of([one for one in sums if one is not None])
    if in_channels is None:
        report.deep = [image for image, _ in files if _is_deep(image)]
    elif files and split == 'train':
        some = [image for image, _ in evenly_spread(files, MEASURED_IMAGES)]
        report.statistics = measured_statistics(some, in_channels)
    return report


def _edges(image: str, mask: str, classes: MaskClasses, in_channels: int | None) -> np.ndarray | None:
    """As `edge_sums`; None if a file cannot be read (reported elsewhere) or the sizes differ."""
    try:
        labels = classes.labels(read_stored(mask, in_colour=bool(classes.colours)), mask)
        pixels = read_image(image, in_channels)
    except UserError:
        return None
    return edge_sums(pixels, labels) if pixels.shape[:2] == labels.shape else None


def _is_deep(image: str) -> bool:
    """Whether a readable file has more than 8 bits per channel."""
    try:
        with open_stored(image) as stream:
            return stored_bits(stream) > 8
    except OSError:
        return False


def _counted(image: str, mask: str, classes: MaskClasses, num_classes: int, in_channels: int | None) -> tuple:
    """Size of an image, pixels of each class and of each ignored value in its mask, and the fault, if any."""
    try:
        size = read_size(image, in_channels)
        stored = read_stored(mask, in_colour=bool(classes.colours))
        labels = classes.labels(stored, mask)
        if labels.shape != size[::-1]:
            return (
                None,
                None,
                None,
                (f'{mask} is {labels.shape[1]}x{labels.shape[0]} and its image {size[0]}x{size[1]} (width x height).'),
            )
    except UserError as error:
        return None, None, None, str(error)
    counts = np.bincount(labels.ravel(), minlength=256)
    left_out = stored[labels == IGNORED]
    if classes.colours:
        left_out = (left_out.astype(np.int32) << (16, 8, 0)).sum(-1)
    values, numbers = np.unique(left_out, return_counts=True)
    words = [f'#{value:06x}' if classes.colours else str(value) for value in values.tolist()]
    return size, np.append(counts[:num_classes], counts[IGNORED]), dict(zip(words, numbers.tolist(), strict=True)), None


def _shared(trained: Sequence[tuple[str, str]], evaluated: Sequence[tuple[str, str]]) -> list[str]:
    """Images of `evaluated` whose files are identical to a file of `trained`."""
    sizes = {Path(image).stat().st_size for image, _ in trained}
    candidates = [image for image, _ in evaluated if Path(image).stat().st_size in sizes]
    if not candidates:
        return []
    lengths = {Path(image).stat().st_size for image in candidates}
    digests = {_digest(image) for image, _ in trained if Path(image).stat().st_size in lengths}
    return [image for image in candidates if _digest(image) in digests]


def _digest(path: str) -> bytes:
    return hashlib.blake2b(Path(path).read_bytes()).digest()


def _figure(report: SplitReport) -> Figure | None:
    """Images and their masks in class colours; None if no pair can be read."""
    pairs = list(_shown(report))
    if not pairs:
        return None
    images, masks = zip(*pairs, strict=True)
    return segmentation_figure(images, {}, masks, report.classes, report.palette)


def _shown(report: SplitReport) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    step = max(1, len(report.files) // NUM_SHOWN)
    classes = report.mask_classes
    for image, mask in report.files[::step][:NUM_SHOWN]:
        try:
            pixels = read_picture(image, report.in_channels)
            labels = classes.labels(read_stored(mask, in_colour=bool(classes.colours)), mask)
        except UserError:
            continue
        shrink = max(1, max(pixels.shape[:2]) / SHOWN_SIDE)
        size = (round(pixels.shape[1] / shrink), round(pixels.shape[0] / shrink))
        yield (
            np.asarray(Image.fromarray(pixels).resize(size)),
            np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST)),
        )
