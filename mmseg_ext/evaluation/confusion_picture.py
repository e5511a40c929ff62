"""A picture of a confusion matrix, for ten classes as for hundreds."""

from collections.abc import Sequence
from math import ceil

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay
from torch import Tensor

from mmseg_ext.evaluation.per_class import normalised
from tokenlabel.pictures.labels import INK, PAPER

ABSENT = '#dfe3e8'
FEW = 30  # up to this number of classes, cells show their values
CELL, SMALL_CELL, LARGEST = 0.42, 0.11, 22.0  # inches: a cell with a number, one without, all cells together
MAX_NAME = 24  # characters


def confusion_figure(confusion: Tensor, names: Sequence[str]) -> Figure:
    """Confusion matrix in percent of each class's pixels; a row without pixels is grey.

    The colour follows the square root of the share, so that a confusion of 2 % is visible.

    Args:
        confusion: Pixel counts [C, C]: rows are the ground truth, columns the prediction.
        names: Names of the C classes.
    """
    shares = 100 * normalised(confusion).numpy()
    num_classes = len(names)
    with_numbers = num_classes <= FEW
    cell = min(CELL if with_numbers else SMALL_CELL, LARGEST / num_classes)
    # a name takes 5/6 of its line; if lines are too thin to read, only every n-th class is named
    font = 9.0 if with_numbers else max(72 * cell * 5 / 6, 4.0)
    every = ceil(font * 1.15 / (72 * cell))
    labels = [name if len(name) <= MAX_NAME else f'{name[: MAX_NAME - 1]}…' for name in map(str, names)]
    margin = 0.35 + font / 72 * 0.62 * max(map(len, labels))
    side = cell * num_classes
    head, bar = 0.55, 0.9
    width, height = max(margin + side + bar, 4.5), margin + side + head
    figure = Figure(figsize=(width, height), facecolor=PAPER)
    figure.text(0.1 / width, 1 - 0.1 / height, 'Confusion matrix', va='top', fontsize=11, weight='bold', color=INK)
    note = '% of the pixels of each class (row) that were predicted as each class (column)'
    figure.text(0.1 / width, 1 - 0.31 / height, note, va='top', fontsize=8, color=INK)
    axis = figure.add_axes((margin / width, margin / height, side / width, side / height), facecolor=ABSENT)
    display = ConfusionMatrixDisplay(shares, display_labels=labels)
    pixels = {'norm': PowerNorm(0.5, 0, 100), 'interpolation': 'nearest', 'aspect': 'auto'}
    display.plot(include_values=with_numbers, cmap='Blues', ax=axis, colorbar=False, values_format='.0f', im_kw=pixels)
    for row, column in np.ndindex(shares.shape) if with_numbers else ():
        text, share = display.text_[row, column], shares[row, column]
        shown = '' if not share >= 0.05 else f'{share:.0f}' if share >= 0.95 else f'{share:.1f}'  # NaN neither
        text.set(text=shown, fontsize=7, color=PAPER if share > 45 else INK)
    ticks = range(0, num_classes, every)
    axis.set_xticks(ticks, labels[::every], rotation=90, fontsize=font, color=INK)
    axis.set_yticks(ticks, labels[::every], fontsize=font, color=INK)
    axis.tick_params(length=0, pad=2)
    axis.set_xlabel('prediction', fontsize=8, color=INK)
    axis.set_ylabel('ground truth', fontsize=8, color=INK)
    axis.spines[:].set_visible(False)
    bar_height = min(side, 3.0)
    bar_box = ((margin + side + 0.15) / width, (margin + side - bar_height) / height, 0.12 / width, bar_height / height)
    scale = figure.colorbar(display.im_, cax=figure.add_axes(bar_box), ticks=[0, 1, 5, 20, 50, 100])
    scale.ax.tick_params(labelsize=7, colors=INK, length=2)
    scale.outline.set_visible(False)
    return figure
