"""The images that a model segments worst, beside their ground truth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from mmengine.runner import Runner

from mmseg_ext.checks.in_channels import in_channels_of
from mmseg_ext.datasets.read_image import read_picture
from tokenlabel.files.reading import printable
from tokenlabel.pictures.labels import INK, PAPER, UNLABELLED, Palette, class_palette

PANEL, GAP, LEGEND, LEGEND_LINE, HEAD, CAPTION = 3.2, 0.12, 2.3, 0.135, 0.62, 0.26  # inches
LOWEST, HIGHEST = 0.25, 1.5  # of a panel, in its width
MAX_LEGEND, MAX_NAME = 14, 28  # lines, characters


@dataclass(frozen=True)
class Example:
    """An image with its ground truth and prediction.

    Attributes:
        path: Path of the image.
        IoU: Mean over the classes in the image, in percent.
        image: RGB, uint8 [H, W, 3].
        ground_truth: Classes [H, W]; other values are unlabelled.
        prediction: Classes [H, W].
    """

    path: str
    IoU: float
    image: np.ndarray
    ground_truth: np.ndarray
    prediction: np.ndarray


def worst_first(images: Sequence[Mapping]) -> list[Mapping]:
    """Records of a metric (`img_path`, `IoU`...) sorted by ascending IoU, then path; without unlabelled images."""
    scored = [image for image in images if not isnan(image['IoU'])]
    return sorted(scored, key=lambda image: (image['IoU'], image['img_path']))


def segment_again(runner: Runner, images: Sequence[Mapping]) -> list[Example]:
    """Loads images of the test set and segments them one by one, as in the test.

    Only the few images to draw are predicted again, because keeping all predictions of a test would fill the memory.

    Args:
        runner: Runner after its test.
        images: Records of its metric, see `worst_first`; their `IoU` is in [0, 1].
    """
    loader = runner.test_loop.dataloader
    dataset = loader.dataset
    places = {dataset.get_data_info(index)['img_path']: index for index in range(len(dataset))} if images else {}
    runner.model.eval()
    examples = []
    for record in images:
        with torch.no_grad():
            [sample] = runner.model.test_step(loader.collate_fn([dataset[places[record['img_path']]]]))
        ground_truth = sample.gt_sem_seg.data[0].cpu().numpy()
        prediction = sample.pred_sem_seg.data[0].cpu().numpy()
        image = read_picture(record['img_path'], in_channels_of(runner.cfg))
        examples.append(Example(record['img_path'], 100 * record['IoU'], image, ground_truth, prediction))
    return examples


def examples_figure(examples: Sequence[Example], names: Sequence[str], palette: Palette | None = None) -> Figure:
    """A row per image: the image, its ground truth, the prediction, and the classes of both by area.

    A name in the legend is followed by the class's share of the labelled pixels in the ground truth and in the
    prediction.

    Args:
        examples: What to draw.
        names: Names of all C classes.
        palette: One RGB colour (0..255) per class; `tokenlabel.pictures.labels.class_palette` when None.
    """
    colors = np.array([*(palette or class_palette(len(names))), UNLABELLED], np.uint8)
    heights = [PANEL * np.clip(one.image.shape[0] / one.image.shape[1], LOWEST, HIGHEST) for one in examples]
    width = GAP + 3 * (PANEL + GAP) + LEGEND
    height = HEAD + sum(heights) + len(examples) * (CAPTION + GAP)
    figure = Figure(figsize=(width, height), facecolor=PAPER)
    figure.text(GAP / width, 1 - 0.12 / height, 'Worst images', va='top', fontsize=11, weight='bold', color=INK)
    for column, title in enumerate(('image', 'ground truth', 'prediction', 'classes: % true, % predicted')):
        left = (GAP + column * (PANEL + GAP)) / width
        figure.text(left, 1 - 0.4 / height, title, va='top', fontsize=8.5, color=INK)
    top = height - HEAD
    for example, panel_height in zip(examples, heights, strict=True):
        caption = f'{_clipped(printable(example.path), 90, keep_end=True)}   IoU {example.IoU:.1f} %'
        figure.text(GAP / width, (top - 0.05) / height, caption, va='top', fontsize=8, color=INK, parse_math=False)
        bottom = top - CAPTION - panel_height
        truth = _with_unlabelled(example.ground_truth, len(names))
        answer = _with_unlabelled(example.prediction, len(names))
        for column, picture in enumerate((example.image, colors[truth], colors[answer])):
            left = GAP + column * (PANEL + GAP)
            axis = figure.add_axes((left / width, bottom / height, PANEL / width, panel_height / height))
            axis.imshow(picture, interpolation='nearest' if column else 'lanczos')
            axis.set_axis_off()
        anchor = ((GAP + 3 * (PANEL + GAP)) / width, (bottom + panel_height) / height)
        figure.legend(
            handles=_patches(truth, answer, names, colors, min(int(panel_height / LEGEND_LINE), MAX_LEGEND)),
            loc='upper left',
            bbox_to_anchor=anchor,
            frameon=False,
            borderpad=0,
            borderaxespad=0,
            fontsize=7.5,
            labelcolor=INK,
            handlelength=1,
            handleheight=1,
            labelspacing=0.25,
        )
        top = bottom - GAP
    return figure


def _with_unlabelled(classes: np.ndarray, num_classes: int) -> np.ndarray:
    """Class ids, with all other values set to `num_classes`."""
    return np.where((classes >= 0) & (classes < num_classes), classes, num_classes).astype(np.int64)


def _patches(
    truth: np.ndarray, answer: np.ndarray, names: Sequence[str], colors: np.ndarray, lines: int
) -> list[Patch]:
    """Legend of the classes in either map within labelled pixels, largest area first, at most `lines` entries."""
    num_classes = len(names)
    labelled = truth < num_classes
    true = np.bincount(truth[labelled], minlength=num_classes + 1)
    predicted = np.bincount(answer[labelled], minlength=num_classes + 1)
    total = max(int(labelled.sum()), 1)
    order = np.argsort(-np.maximum(true, predicted), kind='stable')
    shown = [label for label in order if true[label] or predicted[label]]
    patches = [
        Patch(
            color=colors[label] / 255,
            label=f'{_clipped(str(names[label]), MAX_NAME)}  {_percent(true[label], total)}, '
            f'{_percent(predicted[label], total)}',
        )
        for label in shown[: lines - 1]
    ]
    if not labelled.all():
        patches.append(Patch(color=colors[num_classes] / 255, label='unlabelled'))
    return patches


def _percent(part: int, total: int) -> str:
    share = 100 * part / total
    return '<1' if 0 < share < 0.5 else f'{share:.0f}'


def _clipped(text: str, length: int, keep_end: bool = False) -> str:
    """At most `length` characters of a text."""
    if len(text) <= length:
        return text
    return f'…{text[1 - length :]}' if keep_end else f'{text[: length - 1]}…'
