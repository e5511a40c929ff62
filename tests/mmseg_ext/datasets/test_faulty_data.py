"""Runs on data that are not as they should be: handled, or refused in one sentence."""

import pytest
import torch
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from PIL import Image

from mmseg_ext.checks.config_parts import steps_of
from tests.tiny_segmentation import tiny_config
from tokenlabel.engine.config.run_config import register_imports
from tokenlabel.engine.runner import Runner
from tokenlabel.errors import UserError


@pytest.fixture
def config(tmp_path, monkeypatch) -> Config:
    """A tiny UperNet on two images of 75 x 65 and 66 x 85 pixels; one step and a validation."""
    monkeypatch.setitem(MODULE2PACKAGE, 'mmseg', MODULE2PACKAGE['mmseg'])
    config = tiny_config(tmp_path)
    config.default_hooks.checkpoint = dict(type='CheckpointHook', interval=-1, save_last=False)
    register_imports(config)
    return config


def test_a_crop_larger_than_the_images_is_padded_and_the_padding_not_learned(config):
    config.model.data_preprocessor.size = config.model.test_cfg.crop_size = (128, 128)
    for split, position in (('train', 2), ('val', 1)):
        config[f'{split}_dataloader'].dataset.pipeline[position].scale = (64, 32)
    config.train_dataloader.dataset.pipeline[3].crop_size = (128, 128)
    runner = Runner.from_cfg(config)
    runner.train()
    assert 0 <= runner.message_hub.get_scalar('val/mIoU').current() <= 100
    batch = next(iter(runner.train_dataloader))
    sizes = [image.shape[1:] for image in batch['inputs']]
    batch = runner.model.data_preprocessor(batch, training=True)
    assert batch['inputs'].shape == (2, 3, 128, 128)
    for (height, width), sample in zip(sizes, batch['data_samples'], strict=True):
        labels = sample.gt_sem_seg.data[0]
        assert height < 128 and width < 128
        assert (labels[height:] == 255).all() and (labels[:, width:] == 255).all()
    runner.call_hook('after_run')


@pytest.mark.parametrize('workers', [0, 1])
def test_an_id_that_is_no_class_ends_the_run_with_the_name_of_the_file(config, tmp_path, workers):
    for path in (tmp_path / 'ade/annotations/training').iterdir():
        Image.new('L', Image.open(path).size, 151).save(path)
    config.train_dataloader.num_workers = workers
    for step, _ in steps_of(config.train_dataloader.dataset.pipeline):
        if step.type == 'LoadLabelMap':
            step.num_classes = 150  # as `prepare_training` sets it
    with pytest.raises(UserError, match=r'annotations/training/.*\.png holds id 151 in'):
        Runner.from_cfg(config).train()


def test_weights_of_another_number_of_classes_are_refused(config, tmp_path):
    other = Runner.from_cfg(config)
    weights = other.model.state_dict()
    weights['decode_head.conv_seg.weight'] = torch.zeros(21, 16, 1, 1)
    torch.save(dict(state_dict=weights), tmp_path / 'other.pth')
    with pytest.raises(
        UserError, match=r'other\.pth does not fit this model .*decode_head\.conv_seg\.weight.*\[21, 16'
    ):
        other.load_checkpoint(str(tmp_path / 'other.pth'))
