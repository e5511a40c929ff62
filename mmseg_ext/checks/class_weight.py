"""Class weights of the loss from class frequencies: `class_weight='auto'`."""

from collections.abc import Sequence

import numpy as np
from mmengine.config import Config

from mmseg_ext.checks.config_parts import heads_of, losses_of
from mmseg_ext.checks.data_report import SplitReport, data_report

AUTO = 'auto'


def settle_class_weight(config: Config, train: bool = True) -> None:
    """Replaces `class_weight='auto'` by numbers in the losses of the heads.

    Args:
        config: A segmentation config, changed in place.
        train: Compute the weights from the training masks; False removes them, because evaluation has no loss.

    Raises:
        UserError: As `data_report`.
    """
    losses = [loss for head, place in heads_of(config) for loss, _ in losses_of(head, place)]
    automatic = [loss for loss in losses if loss.get('class_weight') == AUTO]
    if not automatic:
        return
    weights = None
    if train:
        weights = inverse_root_frequency([report for report in data_report(config) if report.split == 'train'])
    for loss in automatic:
        loss['class_weight'] = weights


def inverse_root_frequency(reports: Sequence[SplitReport]) -> list[float]:
    """Class weights `1 / sqrt(share of pixels)`, scaled to a mean of 1 over the classes that occur.

    A class that does not occur has the weight 1. Without the square root, rare classes would dominate the loss if
    shares differ a hundredfold.
    """
    pixels = np.sum([report.pixels[:-1] for report in reports], axis=0).astype(float)
    occurs = pixels > 0
    weights = np.ones_like(pixels)
    weights[occurs] = 1 / np.sqrt(pixels[occurs] / pixels.sum())
    weights[occurs] /= weights[occurs].mean()
    return [round(float(weight), 4) for weight in weights]
