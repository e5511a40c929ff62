"""What follows from `model.in_channels`, and what it refuses."""

import copy

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS, TRANSFORMS

import mmseg_ext  # noqa: F401  (registers the names)
from mmseg_ext.checks.in_channels import check_statistics, measured_statistics, settle_in_channels
from tests.places import CONFIGS
from tests.tiny_segmentors import segmentor
from tokenlabel.engine.config.run_config import load_config
from tokenlabel.errors import UserError

FIVE = dict(mean=[1.0, 2.0, 3.0, 4.0, 5.0], std=[1.0] * 5)


def custom(**model) -> Config:
    config = load_config(CONFIGS / 'custom.py')
    for key, value in model.items():
        config.model[key] = value
    return config


def test_without_it_nothing_changes():
    config = custom()
    before = copy.deepcopy(config.to_dict())
    settle_in_channels(config)
    check_statistics(config)
    assert config.to_dict() == before


def test_one_line_settles_loaders_backbone_order_and_augmentation():
    config = custom(in_channels=5)
    settle_in_channels(config)
    settle_in_channels(config)  # a second time changes nothing
    assert config.model.backbone.in_chans == 5 and config.model.data_preprocessor.bgr_to_rgb is False
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        assert loader.dataset.pipeline[0].in_channels == 5 and '.npy' in loader.dataset.img_suffix
    kinds = [step.type for step in config.train_dataloader.dataset.pipeline]
    assert 'RandomIntensity' in kinds and 'PhotoMetricDistortion' not in kinds
    assert config.tta_pipeline[0].in_channels == 5


@pytest.mark.parametrize('value', [0, 129, 'three', 2.0])
def test_a_number_of_channels_that_cannot_be_is_refused(value):
    with pytest.raises(UserError, match=r'model\.in_channels is .*: set it to the number of channels'):
        settle_in_channels(custom(in_channels=value))


@pytest.mark.parametrize('kind', ['CLAHE', 'AdjustGamma', 'RGB2Gray'])
def test_transforms_of_8_bit_pictures_are_refused(kind):
    config = custom(in_channels=5)
    config.train_dataloader.dataset.pipeline.insert(2, dict(type=kind))
    with pytest.raises(
        UserError, match=rf'train_dataloader\.dataset\.pipeline\.2 is {kind}, which only supports 8-bit'
    ):
        settle_in_channels(config)


@pytest.mark.parametrize('key', ['mean', 'std'])
def test_mean_and_std_have_as_many_numbers_as_channels(key):
    config = custom(in_channels=5)
    config.model.data_preprocessor |= FIVE
    check_statistics(config)
    for wrong in ([1.0] * 3, None):
        config.model.data_preprocessor[key] = wrong
        message = rf'data_preprocessor\.{key} has \d numbers but images have 5 channels .*`tokenlabel inspect`'
        with pytest.raises(UserError, match=message):
            check_statistics(config)


def test_mean_and_std_of_other_images_are_refused(tmp_path):
    files = [str(tmp_path / f'{number}.npy') for number in range(20)]
    for number, file in enumerate(files):
        np.save(file, np.random.default_rng(number).integers(9000, 11000, (8, 8, 3)).astype(np.uint16))
    config = custom(in_channels=3)  # whose mean and std are those of 8-bit RGB
    with pytest.raises(
        UserError, match=r'mean is 123\.675 \(std 58\.395\) for channel 0, but the mean in the images is'
    ):
        check_statistics(config, files)
    mean, std = measured_statistics(files, 3)
    stacked = np.stack([np.load(file) for file in files]).astype(float)
    np.testing.assert_allclose([mean, std], [stacked.mean((0, 1, 2)), stacked.std((0, 1, 2))])
    config.model.data_preprocessor |= dict(mean=mean, std=std)
    check_statistics(config, files)


def test_a_channel_that_is_the_same_everywhere_has_a_std_of_1(tmp_path):
    np.save(tmp_path / 'a.npy', np.full((4, 4, 2), [7, 0], np.uint16))
    assert measured_statistics([str(tmp_path / 'a.npy')], 2) == ([7, 0], [1, 1])


def test_a_backbone_gets_the_channels_by_its_own_name():
    model = segmentor(in_channels=5, data_preprocessor=dict(type='SegDataPreProcessor', **FIVE))
    assert model.backbone.patch_embed.conv1.in_channels == 5
    resnet = dict(type='ResNetV1c', depth=18, num_stages=4, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))
    head = dict(type='FCNHead', in_channels=512, in_index=3, channels=8, num_classes=2)
    model = MODELS.build(dict(type='BatchedEncoderDecoder', in_channels=5, backbone=resnet, decode_head=head))
    assert model.backbone.stem[0].in_channels == 5


@pytest.mark.parametrize('channels', [2, 4, 5])
def test_the_preprocessor_normalises_any_number_of_channels(channels):
    mean, std = list(range(channels)), [float(number + 1) for number in range(channels)]
    preprocessor = MODELS.build(dict(type='SegDataPreProcessor', mean=mean, std=std))
    image = torch.rand(channels, 6, 7) * 1000
    [normalised] = preprocessor(dict(inputs=[image]))['inputs']
    expected = (image - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(normalised, expected)


@pytest.mark.parametrize(('channels', 'shape'), [(13, (12, 20, 13)), (1, (12, 20)), (128, (12, 20, 128))])
def test_a_pipeline_keeps_16_bits_and_resizes_every_channel_by_itself(channels, shape, tmp_path):
    image = np.random.default_rng(0).integers(0, 65536, (24, 40, channels)).astype(np.uint16)
    np.save(tmp_path / 'a.npy', image)
    load = TRANSFORMS.build(dict(type='LoadImageFromFile', in_channels=channels))
    loaded = load(dict(img_path=str(tmp_path / 'a.npy')))
    np.testing.assert_array_equal(loaded['img'], image if channels > 1 else image[..., 0])
    resize = TRANSFORMS.build(dict(type='Resize', scale=(20, 12)))
    together = resize(dict(loaded))['img']
    assert together.shape == shape
    each = [resize(dict(loaded, img=np.float32(image[..., number])))['img'] for number in range(channels)]
    np.testing.assert_allclose(together, np.stack(each, -1).reshape(shape), rtol=1e-5)
    packed = TRANSFORMS.build(dict(type='PackSegInputs'))(dict(loaded, img=together))['inputs']
    assert packed.shape == (channels, 12, 20)


def test_arrays_keep_their_channels():
    load = TRANSFORMS.build(dict(type='LoadImageFromNDArray', in_channels=5))
    array = np.random.default_rng(0).integers(0, 65536, (5, 8, 9)).astype(np.uint16)
    np.testing.assert_array_equal(load(dict(img=array))['img'], np.moveaxis(array, 0, 2))
    with pytest.raises(
        UserError, match=r'The image has 9 channels \(shape \[4, 8, 9\]\), but model.in_channels is 5: set'
    ):
        load(dict(img=array[:4]))
