"""Images of other channels than 8-bit RGB through every command: inspect, train, test, segment."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from tests.channel_data import (
    scene,
    write_bands_first,
    write_config,
    write_folders,
    write_grey_png,
    write_npy,
    write_tiff,
)

pytestmark = pytest.mark.distributions


def statistics_of(output: str) -> str:
    """The two lines that `inspect` prints to paste."""
    return '\n'.join(re.findall(r'^(?:mean|std)=\[.*\],$', output, re.M))


@pytest.mark.parametrize(
    ('channels', 'writers'),
    [
        (13, (write_npy, write_bands_first, write_tiff)),
        (1, (write_grey_png, write_tiff, write_npy)),
        (4, (write_tiff,)),
    ],
)
def test_images_of_many_channels_and_16_bits_train_test_and_segment(channels, writers, run_here, tmp_path):
    write_folders(tmp_path / 'data', channels, writers)
    config = write_config(tmp_path, f"model['in_channels'] = {channels}")
    done = run_here('inspect', config, '--work-dir', tmp_path / 'look')
    assert done.returncode == 0, done.stderr
    assert f'{channels} channels.' in done.stdout
    lines = statistics_of(done.stdout)
    assert lines in (tmp_path / 'look/data.md').read_text()

    refused = run_here('train', config, '--work-dir', tmp_path / 'run')
    assert refused.returncode == 2 and 'tokenlabel inspect' in refused.stderr

    config = write_config(
        tmp_path, f"model['in_channels'] = {channels}\nmodel['data_preprocessor'].update(\n{lines}\n)"
    )
    done = run_here('train', config, '--work-dir', tmp_path / 'run')
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'RandomIntensity replaces PhotoMetricDistortion' in done.stdout + done.stderr
    checkpoint = tmp_path / 'run/iter_2.pth'
    weights = torch.load(checkpoint, weights_only=False)['state_dict']
    assert weights['backbone.patch_embed.conv1.weight'].shape[1] == channels
    assert f'in_channels={channels}' in (tmp_path / 'run/tiny.py').read_text()

    for options in ([], ['--tta']):
        done = run_here('test', config, checkpoint, '--work-dir', tmp_path / 'test', '--report', *options)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / 'test/report/worst_images.png').is_file()

    out = tmp_path / 'out'
    done = run_here(
        *['segment', tmp_path / 'data/images/val', '--config', config, '--checkpoint', checkpoint],
        *['--out', out, '--device', 'cpu'],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for number in range(3):
        _, mask = scene(channels, 10 + number, ((75, 65), (66, 85), (80, 80))[number])
        assert np.asarray(Image.open(out / f'labels/{number}.png')).shape == mask.shape
        assert np.asarray(Image.open(out / f'overlays/{number}.png')).ndim == 3


def test_colour_of_16_bits_is_kept_and_evaluation_and_segment_agree(run_here, tmp_path):
    write_folders(tmp_path / 'data', 3, (write_tiff, write_npy))
    config = write_config(tmp_path, "model['in_channels'] = 3")
    refused = run_here('train', config, '--work-dir', tmp_path / 'run')  # with mean and std of 8-bit RGB
    assert refused.returncode == 2 and 'data_preprocessor.mean is 123.675 (std 58.395) for channel 0' in refused.stderr
    lines = statistics_of(run_here('inspect', config, '--work-dir', tmp_path / 'look').stdout)
    config = write_config(tmp_path, f"model['in_channels'] = 3\nmodel['data_preprocessor'].update(\n{lines}\n)")
    done = run_here('train', config, '--work-dir', tmp_path / 'dry', '--dry-run')
    assert done.returncode == 0 and 'in total' in done.stdout, done.stderr
    done = run_here('train', config, '--work-dir', tmp_path / 'run')
    assert done.returncode == 0, done.stderr
    checkpoint = tmp_path / 'run/iter_2.pth'
    done = run_here(
        *['test', config, checkpoint, '--work-dir', tmp_path / 'test'],
        *['--cfg-options', f'test_evaluator.output_dir={tmp_path}/predicted'],
    )
    assert done.returncode == 0, done.stderr
    done = run_here(
        *['segment', tmp_path / 'data/images/val', '--config', config, '--checkpoint', checkpoint],
        *['--out', tmp_path / 'out', '--device', 'cpu'],
    )
    assert done.returncode == 0, done.stderr
    for number in range(3):
        predicted, segmented = (
            np.asarray(Image.open(tmp_path / f'{folder}/{number}.png')) for folder in ('predicted', 'out/labels')
        )
        assert (predicted == segmented).mean() > 0.999


def test_an_image_of_other_channels_ends_in_one_sentence(run_here, tmp_path):
    write_folders(tmp_path / 'data', 4, (write_npy,))
    statistics = 'mean=[9e3, 1e4, 1e4, 1e4], std=[5e3] * 4'
    config = write_config(tmp_path, f"model['in_channels'] = 4\nmodel['data_preprocessor'].update({statistics})")
    path = tmp_path / 'data/images/train/1.npy'
    image = np.load(path)
    for wrong, message in (
        (image[..., :3], '3 channels (shape [66, 85, 3]), but model.in_channels is 4): set model.in_channels=3 if'),
        (np.where(image > 5000, np.nan, image), 'NaN or infinite values in'),
    ):
        np.save(path, wrong)
        done = run_here('train', config, '--work-dir', tmp_path / 'run')
        assert done.returncode == 2 and 'Traceback' not in done.stderr
        assert f'error: {path} cannot be read as an image ({message}' in done.stderr


def test_16_bits_that_are_read_as_8_are_pointed_at(run_here, tmp_path):
    write_folders(tmp_path / 'data', 1, (write_grey_png,))
    config = write_config(tmp_path, '')
    done = run_here('inspect', config, '--work-dir', tmp_path)
    assert done.returncode == 0
    assert (
        '3 images have more than 8 bits, such as 0.png, but only the upper 8 are used: set model.in_channels=1'
        in done.stdout
    )
