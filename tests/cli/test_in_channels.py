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
    return '\n'.join(re.findall(r'^(?:mean|std)=\[.*\],$', output, re.M)[:2])


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
    assert 'RandomIntensity takes the place of PhotoMetricDistortion' in done.stdout + done.stderr
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
