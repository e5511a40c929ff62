"""Weights of classes in the loss, from how often they occur: `class_weight='auto'`."""

from collections.abc import Sequence

import numpy as np
from mmengine.config import Config

from mmseg_ext.checks.config_parts import heads_of, losses_of
from mmseg_ext.checks.data_report import SplitReport, data_report

AUTO = 'auto'


def settle_class_weight(config: Config, train: bool = True) -> None:
    """Puts numbers in the place of `class_weight='auto'` in the losses of the heads.

    Args:
        config: A segmentation config, changed in place.
        train: Read the masks to train on; else there is nothing to weigh, and the weights are left out.

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
    """One over the root of each class's share of the pixels, with a mean of 1 over the classes that occur.

    A class that occurs nowhere weighs 1. The root keeps rare classes from drowning the others, as the plain inverse
    does where shares differ a hundredfold.
    """
    pixels = np.sum([report.pixels[:-1] for report in reports], axis=0).astype(float)
    occurs = pixels > 0
    weights = np.ones_like(pixels)
    weights[occurs] = 1 / np.sqrt(pixels[occurs] / pixels.sum())
    weights[occurs] /= weights[occurs].mean()
    return [round(float(weight), 4) for weight in weights]
