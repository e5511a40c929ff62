"""Pictures of label maps, token predictions and segmentations: one column per example, one row per kind.

The figures need no display. Images are PIL images, arrays [H, W, 3] or tensors [3, H, W], RGB in 0..255.
"""

import colorsys
import io
import os
from collections.abc import Mapping, Sequence
from math import ceil, floor
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch, Rectangle
from PIL import Image
from torch import Tensor

from tokenlabel.errors import UserError
from tokenlabel.files.output_checks import check_suffix
from tokenlabel.files.writing import write_atomically
from tokenlabel.pictures.names import readable_names

Picture = Image.Image | np.ndarray | Tensor
Palette = Sequence[tuple[int, int, int]]
# best classes and confidence, both [rows, cols], and their extent: left, right, bottom, top in pixels
Cells = tuple[np.ndarray, np.ndarray, tuple[float, float, float, float]]

INK, PAPER, UNLABELLED = '#1f2933', '#ffffff', (236, 239, 243)
PICTURE, GAP, MARGIN, LEGEND_LINE = 1.7, 0.1, 0.35, 0.2  # inches
MAX_LEGEND, MAX_NAME = 20, 20  # classes, characters
FIGURE_SUFFIXES = ('.png', '.pdf', '.svg', '.jpg', '.jpeg', '.webp')


def label_map_figure(
    images: Sequence[Picture],
    label_maps: Sequence,
    class_names: Sequence[str],
    palette: Palette | None = None,
    captions: Sequence[str] = (),
) -> Figure:
    """The annotator's best class in every cell, over the part of the image that it saw.

    Args:
        images: the source images.
        label_maps: one `LabelMap` per image: `scores` and `classes` [k, S, S], best first, and an upright `view`.
        class_names: names of all classes; a class that a cell does not list has score 0, as in the training targets.
        palette: one RGB colour (0..255) per class; `class_palette` when None.
        captions: a title over each image.
    """
    cells = [
        _map_cells(image, label_map, len(class_names)) for image, label_map in zip(images, label_maps, strict=True)
    ]
    return _cells_figure('Label maps', 'annotator', images, cells, class_names, palette, captions)


def crop_targets_figure(
    images: Sequence[Picture],
    label_maps: Sequence,
    crops: Sequence[tuple[float, float, float, float]],
    targets: Sequence[Tensor],
    class_names: Sequence[str],
    palette: Palette | None = None,
    captions: Sequence[str] = (),
) -> Figure:
    """A label map over its image, a crop, and the training targets of the crop's tokens.

    Args:
        images, label_maps: as in `label_map_figure`.
        crops: (left, top, width, height) of a crop of each image, in fractions of the image; it is outlined.
        targets: one tensor [rows, cols, C] per image, the targets of the crop's tokens.
        class_names, palette, captions: as in `label_map_figure`.
    """
    colors = np.array(palette or class_palette(len(class_names)), np.uint8)
    annotated, given, cutouts = [], [], []
    for image, label_map, crop, target in zip(images, label_maps, crops, targets, strict=True):
        pixels = _pixels(image)
        height, width = pixels.shape[:2]
        left, top, right, bottom = _corners(crop, width, height)
        cutouts.append(pixels[floor(top) : ceil(bottom), floor(left) : ceil(right)])
        annotated.append(_map_cells(image, label_map, len(class_names)))
        confidence, classes = target.float().cpu().max(-1)
        given.append((classes.numpy(), confidence.numpy(), (0, cutouts[-1].shape[1], cutouts[-1].shape[0], 0)))
    legend = _legend(_weights([*annotated, *given], len(class_names)), class_names, colors)
    figure, [maps, crop_axes, target_axes] = _canvas(
        'Maps and targets', 'opacity: confidence', ['annotator', 'crop', 'targets'], images, legend, captions
    )
    for axis, image, cells in zip(maps, images, annotated, strict=True):
        _draw_cells(axis, image, cells, class_names, colors)
    for axis, target_axis, cutout, cells in zip(crop_axes, target_axes, cutouts, given, strict=True):
        _show(axis, cutout)
        _draw_cells(target_axis, cutout, cells, class_names, colors)
    for image_axis, map_axis, image, crop in zip(figure.axes, maps, images, crops, strict=False):
        height, width = _pixels(image).shape[:2]
        left, top, right, bottom = _corners(crop, width, height)
        for axis in (image_axis, map_axis):
            axis.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, color=PAPER, linewidth=1.2))
    return figure


def token_labels_figure(
    images: Sequence[Picture],
    targets: Sequence[Tensor],
    class_names: Sequence[str],
    palette: Palette | None = None,
    captions: Sequence[str] = (),
) -> Figure:
    """Training targets of a batch: the best class of every token's target, over the model's input.

    Args:
        images: the model's inputs, as pictures.
        targets: one tensor [rows, cols, C] of shares in [0, 1] per image; [1, 1, C] for one label per image.
        class_names: names of all C classes.
        palette: one RGB colour (0..255) per class; `class_palette` when None.
        captions: a title over each image.
    """
    cells = _token_cells(images, targets)
    return _cells_figure('Token labels', 'labels', images, cells, class_names, palette, captions)


def token_predictions_figure(
    images: Sequence[Picture],
    token_logits: Sequence[Tensor],
    class_names: Sequence[str],
    palette: Palette | None = None,
    captions: Sequence[str] = (),
) -> Figure:
    """The model's best class for every token, over its input.

    Args:
        images: the model's inputs, as pictures.
        token_logits: one tensor [rows, cols, C] per image.
        class_names: names of all C classes.
        palette: one RGB colour (0..255) per class; `class_palette` when None.
        captions: a title over each image.
    """
    cells = _token_cells(images, [logits.detach().float().softmax(-1) for logits in token_logits])
    return _cells_figure('Token predictions', 'tokens', images, cells, class_names, palette, captions)


def segmentation_figure(
    images: Sequence[Picture],
    predictions: Mapping[str, Sequence[np.ndarray | Tensor]],
    ground_truths: Sequence[np.ndarray | Tensor],
    class_names: Sequence[str],
    palette: Palette | None = None,
) -> Figure:
    """Segmentations below their images, the ground truth last.

    Args:
        images: the pictures.
        predictions: class maps [H, W] of every model, by the name of its row.
        ground_truths: class maps [H, W]; other values than classes (255) are unlabelled and drawn pale.
        class_names: names of all classes.
        palette: one RGB colour (0..255) per class; `class_palette` when None.
    """
    num_classes = len(class_names)
    colors = np.array([*(palette or class_palette(num_classes)), UNLABELLED], np.uint8)
    rows = {
        name: [np.where(np.asarray(classes) < num_classes, classes, num_classes) for classes in maps]
        for name, maps in {**predictions, 'ground truth': ground_truths}.items()
    }
    pixels = np.concatenate([classes.ravel() for maps in rows.values() for classes in maps])
    legend = _legend(np.bincount(pixels, minlength=num_classes + 1), [*class_names, 'unlabelled'], colors)
    figure, axes = _canvas('Segmentation', '', list(rows), images, legend)
    for row, maps in zip(axes, rows.values(), strict=True):
        for axis, classes in zip(row, maps, strict=True):
            axis.imshow(colors[classes], interpolation='nearest')
    return figure


def class_palette(num_classes: int) -> list[tuple[int, int, int]]:
    """Distinct RGB colours, 0..255: hues a golden ratio apart, so that neighbours differ most."""
    tones = [(0.65, 0.95), (0.45, 0.8), (0.85, 0.8)]
    hsv = [(index * 0.618034 % 1, *tones[index // 10 % 3]) for index in range(num_classes)]
    return [tuple(round(255 * part) for part in colorsys.hsv_to_rgb(*color)) for color in hsv]


def save_figure(figure: Figure, path: str | Path, dpi: int = 160) -> Path:
    """Writes a figure atomically to `path`, in the format of its suffix.

    Raises:
        UserError: the suffix is none of `FIGURE_SUFFIXES`, the picture would be too large, or as `write_atomically`.
    """
    path = Path(path)
    check_suffix(path, FIGURE_SUFFIXES)
    picture = io.BytesIO()
    try:
        figure.savefig(picture, dpi=dpi, facecolor=PAPER, format=path.suffix.lower().removeprefix('.'))
    except ValueError as error:  # Matplotlib's error for more pixels than a file can have
        raise UserError(f'{path} would be too large a picture ({error}): draw fewer images.') from error
    write_atomically(path, picture.getvalue())
    return path


def _token_cells(images: Sequence[Picture], shares: Sequence[Tensor]) -> list[Cells]:
    """Cells of tokens that cover their images; one tensor [rows, cols, C] of shares in [0, 1] per image."""
    cells = []
    for image, of_image in zip(images, shares, strict=True):
        confidence, classes = of_image.float().cpu().max(-1)
        height, width = _pixels(image).shape[:2]
        cells.append((classes.numpy(), confidence.numpy(), (0, width, height, 0)))
    return cells


def _map_cells(image: Picture, label_map, num_classes: int) -> Cells:
    """Cells of a label map; a class that a cell does not list has score 0."""
    scores = torch.as_tensor(label_map.scores).float()
    unlisted = torch.full_like(scores[:1], num_classes - len(scores)).log()
    confidence = torch.cat([scores, unlisted]).softmax(0)[0].numpy()
    height, width = _pixels(image).shape[:2]
    (scale_x, _, left), (_, scale_y, top) = np.asarray(label_map.view.matrix)
    extent = (left * width, (left + scale_x) * width, (top + scale_y) * height, top * height)
    return np.asarray(label_map.classes[0], np.int64), confidence, extent


def _cells_figure(title, row_name, images, cells, class_names, palette, captions) -> Figure:
    """Images, and below them their cells: colour is the class, opacity the confidence."""
    colors = np.array(palette or class_palette(len(class_names)), np.uint8)
    legend = _legend(_weights(cells, len(class_names)), class_names, colors)
    figure, [axes] = _canvas(title, 'opacity: confidence', [row_name], images, legend, captions)
    for axis, image, of_image in zip(axes, images, cells, strict=True):
        _draw_cells(axis, image, of_image, class_names, colors)
    return figure


def _draw_cells(axis: Axes, image: Picture, cells: Cells, class_names: Sequence[str], colors: np.ndarray) -> None:
    classes, confidence, extent = cells
    class_names = readable_names(class_names)
    shared = os.path.commonprefix(class_names)  # noqa: RUF071 - characters, not path parts
    grey = _show(axis, _pixels(image).mean(-1) * 0.35, cmap='gray', vmin=0, vmax=255)
    overlay = np.concatenate([colors[classes] / 255, confidence[..., None] * 0.9], axis=-1)
    axis.imshow(overlay, extent=extent, interpolation='nearest')
    axis.set(xlim=grey.get_extent()[:2], ylim=grey.get_extent()[2:])
    _name_cells(axis, classes, confidence, extent, [name.removeprefix(shared) for name in class_names])


def _weights(cells: Sequence[Cells], num_classes: int) -> np.ndarray:
    """Total confidence of each class over all cells, to sort the legend."""
    return sum(np.bincount(c.ravel(), p.ravel(), minlength=num_classes) for c, p, _ in cells)


def _corners(crop: tuple[float, float, float, float], width: int, height: int) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) in pixels of a crop (left, top, width, height) in fractions."""
    left, top, crop_width, crop_height = crop
    return left * width, top * height, (left + crop_width) * width, (top + crop_height) * height


def _name_cells(axis: Axes, classes: np.ndarray, confidence: np.ndarray, extent, names: Sequence[str]) -> None:
    """Writes the class name into each confident cell with enough room."""
    rows, cols = classes.shape
    left, right, bottom, top = extent
    box, inches = axis.get_position(), axis.figure.get_size_inches()
    scale = 72 * min(box.width * inches[0] / np.ptp(axis.get_xlim()), box.height * inches[1] / np.ptp(axis.get_ylim()))
    width, height = scale * abs(right - left) / cols, scale * abs(bottom - top) / rows  # of a cell, in points
    font_size = min(width / 2, 0.7 * height, 10)
    for (row, col), label in np.ndenumerate(classes):
        fits = font_size >= 4 and 0.65 * font_size * len(names[label]) < 0.9 * width
        if fits and confidence[row, col] >= 0.5:
            x, y = left + (col + 0.5) * (right - left) / cols, top + (row + 0.5) * (bottom - top) / rows
            axis.text(x, y, names[label], ha='center', va='center_baseline', fontsize=font_size, color=PAPER)


def _canvas(title, subtitle, row_names, images, legend, captions=()) -> tuple[Figure, list[list[Axes]]]:
    """A figure with the images in its first row and the legend below, and the empty axes of the named rows."""
    pictures = [_pixels(image) for image in images]
    tallest = PICTURE * min(max(picture.shape[0] / picture.shape[1] for picture in pictures), 1.5)
    width = MARGIN + len(pictures) * (PICTURE + GAP)
    names = [0.35 + 0.07 * len(patch.get_label()) for patch in legend]
    legend_columns = len(legend) if sum(names) <= width - MARGIN else max(int((width - MARGIN) / max(names)), 1)
    legend_rows = -(-len(legend) // legend_columns)
    legend_columns = -(-len(legend) // legend_rows)
    legend_height = LEGEND_LINE * legend_rows + GAP
    header = 0.4 + 0.14 * bool(subtitle) + 0.18 * bool(captions)
    height = header + (1 + len(row_names)) * (tallest + GAP) + legend_height
    figure = Figure(figsize=(width, height), facecolor=PAPER)
    figure.text(MARGIN / width, 1 - 0.12 / height, title, va='top', fontsize=11, weight='bold', color=INK)
    figure.text(MARGIN / width, 1 - 0.32 / height, subtitle, va='top', fontsize=8, color=INK)
    axes = []
    for row, row_name in enumerate(['image', *row_names]):
        bottom = height - header - tallest - row * (tallest + GAP)
        x, y = 0.5 * MARGIN / width, (bottom + tallest / 2) / height
        figure.text(x, y, row_name, rotation=90, ha='center', va='center', fontsize=9, color=INK)
        lefts = [MARGIN + column * (PICTURE + GAP) for column in range(len(pictures))]
        axes.append([figure.add_axes((x / width, bottom / height, PICTURE / width, tallest / height)) for x in lefts])
        for axis in axes[-1]:
            axis.set_axis_off()
    for axis, picture, caption in zip(axes[0], pictures, captions or [''] * len(pictures), strict=True):
        _show(axis, picture)
        axis.set_title(caption, fontsize=8.5, color=INK, pad=3, parse_math=False)  # names may hold `$`
    box = dict(loc='upper left', bbox_to_anchor=(MARGIN / width, legend_height / height), frameon=False, borderpad=0)
    spacing = dict(handlelength=1, handleheight=1, borderaxespad=0, columnspacing=1.2)
    figure.legend(handles=legend, ncols=legend_columns, fontsize=8, labelcolor=INK, **box, **spacing)
    return figure, axes[1:]


def _show(axis: Axes, picture: np.ndarray, **options) -> AxesImage:
    """Draws a picture with the origin at its corner, as for cells and crops, not at its first pixel's centre."""
    height, width = picture.shape[:2]
    return axis.imshow(picture, extent=(0, width, height, 0), interpolation='lanczos', **options)


def _legend(weights: np.ndarray, names: Sequence[str], colors: np.ndarray) -> list[Patch]:
    """Patches for the classes with the largest weights, in class order."""
    shown = np.sort([label for label in np.argsort(-weights, kind='stable')[:MAX_LEGEND] if weights[label] > 0])
    clipped = [name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + '…' for name in readable_names(names)]
    return [Patch(color=colors[label] / 255, label=clipped[label]) for label in shown]


def _pixels(image: Picture) -> np.ndarray:
    """uint8 [H, W, 3]."""
    return image.permute(1, 2, 0).cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
