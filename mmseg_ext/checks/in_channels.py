"""Images that are not 8-bit RGB: applies `model.in_channels` to the rest of a config and checks its statistics."""

import logging
from collections.abc import Sequence

import numpy as np
from mmengine.config import Config

from mmseg_ext.checks.config_parts import SPLITS, datasets_of, model_of, steps_of
from mmseg_ext.checks.rank_zero_log import rank_zero_log
from mmseg_ext.datasets.read_image import read_image
from mmseg_ext.segmentors.batched_encoder_decoder import with_in_channels
from tokenlabel.errors import UserError
from tokenlabel.files.folder_walk import IMAGE_SUFFIXES
from tokenlabel.image_files.channels import STORED_SUFFIXES

MOST_CHANNELS = 128  # the most that OpenCV resizes
RGB_ONLY = ('AdjustGamma', 'CLAHE', 'RGB2Gray', 'RandomGrayscale')  # transforms for 8-bit images only
PIPELINES = ('train_pipeline', 'test_pipeline', 'tta_pipeline')
MEASURED_IMAGES = 200  # evenly spread images from which mean and std are measured
COMPARED_IMAGES = 8  # images whose mean is compared with the config's before a run
FAR = 10  # largest allowed difference of a channel's mean from the config's, in standard deviations


def in_channels_of(config: Config) -> int | None:
    """Number of channels that images are read with, unchanged; None if they are read as 8-bit RGB."""
    return model_of(config)[0].get('in_channels')


def settle_in_channels(config: Config) -> None:
    """Applies `model.in_channels` to the loading transforms, backbone and preprocessor; does nothing without it.

    Images, including `.npy` files, are then read unchanged. `RandomIntensity` replaces `PhotoMetricDistortion`, and the
    preprocessor does not swap red and blue.

    Args:
        config: A segmentation config, changed in place.

    Raises:
        UserError: `in_channels` is not a whole number from 1 to 128, or a transform only supports 8-bit images.
    """
    model, place = model_of(config)
    in_channels = model.get('in_channels')
    if in_channels is None:
        return
    if not isinstance(in_channels, int) or not 1 <= in_channels <= MOST_CHANNELS:
        raise UserError(f'{place}.in_channels is {in_channels!r}: set it to the number of channels, 1 to 128.')
    model['backbone'] = with_in_channels(model['backbone'], in_channels)
    (model.get('data_preprocessor') or {}).update(bgr_to_rgb=False, rgb_to_bgr=False)
    datasets = [pair for split in SPLITS for pair in datasets_of(config, split)]
    for dataset, _, _ in datasets:
        if dataset.get('type') == 'ImageMaskFolders':
            dataset.setdefault('img_suffix', (*IMAGE_SUFFIXES, *STORED_SUFFIXES))
    pipelines = [(dataset.get('pipeline', []), f'{where}.pipeline') for dataset, where, _ in datasets]
    pipelines += [(config.get(name, []), name) for name in PIPELINES]
    replaced = False
    for pipeline, where in pipelines:
        for step, at in list(steps_of(pipeline, where)):
            if step['type'] in RGB_ONLY:
                raise UserError(f'{at} is {step["type"]}, which only supports 8-bit images: remove it.')
            if step['type'] in ('LoadImageFromFile', 'LoadImageFromNDArray'):
                step['in_channels'] = in_channels
            if step['type'] == 'PhotoMetricDistortion':
                step.clear()
                step['type'] = 'RandomIntensity'
                replaced = True
    if replaced:
        rank_zero_log(
            f'{place}.in_channels is {in_channels}: RandomIntensity replaces PhotoMetricDistortion, which is for '
            '8-bit RGB.',
            logging.INFO,
        )


def check_statistics(config: Config, files: Sequence[str] = ()) -> None:
    """Checks that the preprocessor's mean and std have `model.in_channels` values and fit the images.

    Args:
        config: A segmentation config.
        files: Images; the means of a few of them are compared with the config's.

    Raises:
        UserError: They have another number of values, or a channel's mean is far from the config's.
    """
    model, place = model_of(config)
    if (in_channels := model.get('in_channels')) is None:
        return
    remedy = 'paste the lines mean=[...] and std=[...] that `tokenlabel inspect` prints for this config.'
    preprocessor = model.get('data_preprocessor') or {}
    for key in ('mean', 'std'):
        numbers = preprocessor.get(key) or ()
        if len(numbers) != in_channels:
            raise UserError(
                f'{place}.data_preprocessor.{key} has {len(numbers)} numbers but images have {in_channels} channels '
                f'(model.in_channels): {remedy}'
            )
    if not files:
        return
    measured, _ = measured_statistics(files[:: max(1, len(files) // COMPARED_IMAGES)][:COMPARED_IMAGES], in_channels)
    for number, (own, mean, std) in enumerate(zip(measured, preprocessor['mean'], preprocessor['std'], strict=True)):
        if abs(own - mean) > FAR * std:
            raise UserError(
                f'{place}.data_preprocessor.mean is {mean:g} (std {std:g}) for channel {number}, but the mean in the '
                f'images is {own:g}: {remedy}'
            )


def measured_statistics(files: Sequence[str], in_channels: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel over all pixels of images.

    A constant channel gets a std of 1, so that normalisation does not divide by zero.

    Args:
        files: Images.
        in_channels: Number of channels.

    Raises:
        UserError: As `read_image`.
    """
    count, total, squares = 0, np.zeros(in_channels), np.zeros(in_channels)
    for file in files:
        pixels = read_image(file, in_channels).reshape(-1, in_channels).astype(np.float64)
        count += len(pixels)
        total += pixels.sum(0)
        squares += np.square(pixels).sum(0)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return mean.tolist(), np.where(std > 1e-6 * np.maximum(abs(mean), 1e-6), std, 1).tolist()


def as_lines(mean: Sequence[float], std: Sequence[float]) -> list[str]:
    """`mean=[...],` and `std=[...],`, to paste into `data_preprocessor=dict(...)` of a config."""
    return [
        f'{name}=[{", ".join(f"{number:.6g}" for number in numbers)}],'
        for name, numbers in (('mean', mean), ('std', std))
    ]
