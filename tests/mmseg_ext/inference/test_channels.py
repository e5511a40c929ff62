"""`Segmenter` on images of many channels and 16 bits."""

import numpy as np
import pytest
import tifffile
from mmengine.config import Config
from PIL import Image

from mmseg_ext import Segmenter
from tests.segmenters import convolution_config, write_checkpoint
from tokenlabel.errors import UserError

IMAGE = np.random.default_rng(0).integers(0, 65536, (60, 50, 13)).astype(np.uint16)


def config(channels: int) -> Config:
    """A model whose mean and std are those of uniform 16-bit numbers."""
    config = convolution_config()
    config.model.type = 'BatchedEncoderDecoder'
    config.model.in_channels = channels
    config.model.data_preprocessor |= dict(mean=[32768.0] * channels, std=[18918.0] * channels)
    return config


@pytest.fixture
def segmenter(tmp_path) -> Segmenter:
    one = config(13)
    built = Config(one.to_dict())
    built.model.backbone.in_channels = 13
    return Segmenter(one, write_checkpoint(built, tmp_path / 'c.pth'), device='cpu')


def test_files_and_arrays_of_either_order_give_the_same_labels(segmenter, tmp_path):
    np.save(tmp_path / 'last.npy', IMAGE)
    np.save(tmp_path / 'first.npy', np.moveaxis(IMAGE, 2, 0))
    tifffile.imwrite(tmp_path / 'planes.tif', np.moveaxis(IMAGE, 2, 0), planarconfig='separate')
    results = [segmenter(tmp_path / name) for name in ('last.npy', 'first.npy', 'planes.tif')]
    results += [segmenter(IMAGE), segmenter(np.moveaxis(IMAGE, 2, 0)), segmenter(IMAGE.astype(np.float64))]
    assert len(np.unique(results[0].labels)) > 1
    for result in results:
        np.testing.assert_array_equal(result.labels, results[0].labels)
        assert result.image.shape == (60, 50, 3) and result.image.dtype == np.uint8
    assert results[0].overlay().size[1] >= 60


def test_the_lower_bits_and_the_last_channel_count(segmenter):
    few_bits = (IMAGE.astype(np.float32) / 50000 + 32768).astype(np.float32)
    assert (segmenter(IMAGE).labels != segmenter(few_bits).labels).any()
    changed = IMAGE.copy()
    changed[..., 12] = 0
    assert (segmenter(IMAGE).labels != segmenter(changed).labels).any()


def test_tiles_cut_no_channel(segmenter, tmp_path):
    image = np.tile(IMAGE, (10, 10, 1))
    segmenter.memory_limit = None
    whole = segmenter(image).labels
    segmenter.memory_limit = 40 * 2**20  # less than four copies of the image
    np.testing.assert_array_equal(segmenter(image).labels, whole)


def test_a_model_of_one_channel_takes_16_bits(tmp_path):
    one = config(1)
    built = Config(one.to_dict())
    built.model.backbone.in_channels = 1
    segmenter = Segmenter(one, write_checkpoint(built, tmp_path / 'c.pth'), device='cpu')
    grey = IMAGE[..., 0]
    Image.fromarray(grey).save(tmp_path / 'i.png')
    labels = segmenter(tmp_path / 'i.png').labels
    for image in (grey, IMAGE[..., :1], Image.fromarray(grey)):
        np.testing.assert_array_equal(segmenter(image).labels, labels)
    assert len(np.unique(labels)) > 1


@pytest.mark.parametrize(
    ('image', 'message'),
    [
        (IMAGE[..., :3], r'the image has 3 channels \(shape \[60, 50, 3\]\), but model.in_channels is 13'),
        (np.where(IMAGE > 100, IMAGE, np.nan), 'NaN or infinite values'),
        (Image.fromarray(IMAGE[..., 0]), 'the image has 1 channel'),
        (7, 'an image is a path, a PIL image or a NumPy array'),
    ],
)
def test_other_images_are_refused_in_one_sentence(segmenter, image, message):
    with pytest.raises(UserError, match=message):
        segmenter(image)


def test_a_file_beyond_the_memory_limit_is_refused_before_it_is_decoded(segmenter, tmp_path):
    np.save(tmp_path / 'a.npy', IMAGE)
    segmenter.memory_limit = 12 * 13 * 60 * 50 - 1
    with pytest.raises(UserError, match='3000 pixels, more than the limit of 2999'):
        segmenter(tmp_path / 'a.npy')


def test_a_mean_of_rgb_is_refused():
    rgb = config(13)
    rgb.model.data_preprocessor.mean = [1.0] * 3
    with pytest.raises(UserError, match='mean has 3 numbers but images have 13 channels'):
        Segmenter(rgb, 'none.pth', device='cpu')
