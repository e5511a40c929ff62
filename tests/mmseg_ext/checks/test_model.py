"""What of a segmentation model cannot train is said before the run, by its place in the config."""

import copy

import pytest
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

from mmseg_ext.checks.model import check_model
from tests import tiny_segmentation
from tests.places import CONFIGS
from tests.segmentation_layouts import write_pair
from tokenlabel.engine.config.run_config import load_config, register_imports
from tokenlabel.errors import UserError


@pytest.fixture(scope='module')
def read_config(tmp_path_factory) -> Config:
    path = tmp_path_factory.mktemp('model') / 'tiny.py'
    path.write_text(f"_base_ = ['{CONFIGS}/upernet_lvvit_t.py']\n{tiny_segmentation.TEXT}")
    package = MODULE2PACKAGE['mmseg']
    config = load_config(path)
    MODULE2PACKAGE['mmseg'] = package
    return config


@pytest.fixture
def config(read_config) -> Config:
    """A tiny UperNet of 150 classes, in batches of two crops of 64 x 64."""
    register_imports(read_config)
    return copy.deepcopy(read_config)


def refused(config: Config, message: str, processes: int = 1, on_gpus: bool = False) -> None:
    with pytest.raises(UserError, match=message):
        check_model(config, processes, on_gpus)


def test_a_model_that_fits_passes(config):
    check_model(config, 1, on_gpus=False)
    config.model.decode_head.loss_decode = [
        dict(type='CrossEntropyLoss', class_weight=[1.0] * 150, avg_non_ignore=True),
        dict(type='DiceLoss', loss_name='loss_dice'),
        dict(type='FocalLoss', loss_name='loss_focal'),
    ]
    config.model.decode_head.ignore_index = config.model.auxiliary_head.ignore_index = 150
    check_model(config, 1, on_gpus=True)


def test_one_crop_in_a_batch_is_refused_where_batches_are_normalised_over_one_value(config):
    config.train_dataloader.batch_size = 1
    said = r'one crop of 64x64 leaves one value per channel to a BatchNorm in model\.decode_head: set .*batch_size to 2'
    refused(config, said)
    refused(config, said, processes=8, on_gpus=True)
    for part in ('neck', 'decode_head', 'auxiliary_head'):
        config.model[part].norm_cfg = dict(type='SyncBN')
    refused(config, said)
    refused(config, said, processes=8)
    check_model(config, 8, on_gpus=True)
    for part in ('neck', 'decode_head', 'auxiliary_head'):
        config.model[part].norm_cfg = dict(type='GN', num_groups=4)
    check_model(config, 1, on_gpus=False)


@pytest.mark.parametrize(
    ('count', 'processes', 'refuses'), [(9, 1, True), (8, 1, False), (10, 1, False), (17, 2, True), (1, 1, True)]
)
def test_the_last_batch_of_an_epoch_is_looked_at(config, tmp_path, count, processes, refuses):
    for number in range(count):
        write_pair(tmp_path / f'images/{number}.jpg', tmp_path / f'masks/{number}.png', (0, 1), 0, size=(20, 30))
    config.train_dataloader.update(batch_size=4, sampler=dict(type='DefaultSampler', shuffle=True))
    folders = dict(data_root=str(tmp_path), data_prefix=dict(img_path='images', seg_map_path='masks'))
    config.train_dataloader.dataset.update(folders)
    if refuses:
        refused(config, 'batch_size to 2 or more .and drop_last=True', processes)
    config.train_dataloader.drop_last = True
    check_model(config, processes, on_gpus=False)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'decode_head.num_classes': 1}, r'decode_head\.num_classes is 1, .* name the background as a class too'),
        ({'decode_head.out_channels': 1}, r'decode_head\.out_channels is 1, .* but num_classes is 150'),
        (
            {'decode_head.out_channels': 1, 'decode_head.num_classes': 2, 'decode_head.loss_decode.class_weight': None},
            r'decode_head\.out_channels is 1 but its CrossEntropyLoss uses a softmax.* set use_sigmoid=True',
        ),
        ({'decode_head.loss_decode.class_weight': [1.0, 2.0]}, r'class_weight has 2 weights and the head 150 outputs'),
        ({'decode_head.loss_decode.class_weight': [0] * 150}, r'class_weight is 0 for all classes'),
        ({'auxiliary_head.loss_decode.class_weight': 3.0}, r'auxiliary_head\.loss_decode\.class_weight has no list of'),
        ({'auxiliary_head.loss_decode.class_weight': 'nowhere.json'}, r'nowhere\.json, cannot be read'),
        ({'auxiliary_head.in_channels': 48}, r'model\.auxiliary_head does not take the 4 maps .* 32x16x16, .*in_index'),
        ({'decode_head.in_channels': [32, 32, 32, 64]}, r'model\.decode_head does not take the 4 maps that it gets'),
        ({'auxiliary_head.in_index': 4}, r'model\.auxiliary_head does not take the 4 maps .*IndexError'),
        (
            {'backbone.in_chans': 1},
            r'backbone\.in_chans is 1, and .* gives images of 3 channels: .* or read',
        ),
        (
            {'backbone.in_chans': 4},
            r'backbone\.in_chans is 4, and .* gives images of 3 channels: set in_chans=3, or model\.in_channels=4',
        ),
        ({'neck.in_channels': 48}, r'model\.neck does not take the 4 maps that it gets, 32x4x4'),
        ({'test_cfg.stride': (0, 43)}, r'test_cfg\.stride .* leaves gaps'),
        ({'test_cfg.stride': (65, 43)}, r'test_cfg\.stride .* leaves gaps'),
        ({'test_cfg.stride': 43}, r'no crop_size and stride of two numbers'),
        ({'test_cfg.stride': ('a', 'b')}, r'no crop_size and stride of two numbers'),
        (
            {'data_preprocessor.size': (96, 96)},
            r'crop_size is \(64, 64\), but model.data_preprocessor.size, the padded size, is .96, 96',
        ),
        ({'data_preprocessor.size': None}, r'has neither size nor size_divisor'),
    ],
)
def test_settings_that_do_not_fit_are_named(config, changes, message):
    config.merge_from_dict({f'model.{key}': value for key, value in changes.items()})
    refused(config, message)


def test_grey_images_pass_where_the_backbone_takes_one_channel(config):
    config.train_dataloader.dataset.pipeline[0].color_type = 'grayscale'
    config.model.backbone.in_chans = 1
    check_model(config, 1, on_gpus=False)


def test_a_loss_that_a_cpu_cannot_compute_is_told_before_the_run(config):
    config.model.decode_head.loss_decode = [dict(type='FocalLoss')]
    refused(config, r'model\.decode_head\.loss_decode \(FocalLoss\) fails for 150 classes .* or train on a GPU')
    check_model(config, 1, on_gpus=True)


def test_a_list_of_decode_heads_is_refused(config):
    config.model.decode_head = [config.model.decode_head]
    refused(config, r'model\.decode_head is a list, and BatchedEncoderDecoder has one')


def test_crops_that_the_backbone_does_not_take_are_refused(config):
    config.model.backbone = dict(type='TimmTokens', model_name='mixer_s32_224', img_size=64, out_indices=(0, 1, 2, 3))
    config.model.data_preprocessor.size = (96, 96)
    config.train_dataloader.dataset.pipeline[3].crop_size = (96, 96)
    refused(config, r'mixer_s32_224 takes images up to 64x64 and got 96x96')


def test_a_single_output_for_two_classes_passes(config):
    head = dict(num_classes=2, out_channels=1, loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True))
    config.model.decode_head.update(head)
    config.model.auxiliary_head.update(head)
    check_model(config, 1, on_gpus=False)


def test_the_best_checkpoint_is_of_a_score_that_is_measured(config):
    config.default_hooks.checkpoint.save_best = 'mIou'
    refused(config, r"save_best is 'mIou', which the validation does not measure: set one of aAcc, mIoU, mAcc")
    config.val_evaluator = dict(type='StreamingIoU', iou_metrics=['mDice'], prefix='val')
    config.default_hooks.checkpoint.save_best = ['val/mDice', 'val/aAcc']
    check_model(config, 1, on_gpus=False)
