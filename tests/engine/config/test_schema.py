"""The check of configs before anything is built: every key, type and range, for pretraining and segmentation."""

import copy
import functools
import math

import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS
from torch import nn

from tests.places import CONFIGS
from tokenlabel.engine.config.options import merge_options
from tokenlabel.engine.config.run_config import load_config, register_imports
from tokenlabel.engine.config.schema import check_config
from tokenlabel.errors import UserError

SHIPPED = sorted(
    path.relative_to(CONFIGS).with_suffix('').as_posix()
    for path in CONFIGS.rglob('*.py')
    if '_base_' not in path.parts and path.stem not in ('scenes_segmentation', 'small_images', 'camvid')
)


@functools.cache
def read(name: str) -> Config:
    return load_config(CONFIGS / f'{name}.py')


def check(name: str, options: dict) -> None:
    config = copy.deepcopy(read(name))
    merge_options(config, options)
    register_imports(config)
    check_config(config, f'{name}.py')


def refused(name: str, option: str, value: object, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        check(name, {option: value})
    assert '\n' not in str(error.value)
    assert option.split('.')[0] in str(error.value)


@pytest.mark.parametrize('name', SHIPPED)
def test_every_config_of_the_project_passes(name):
    check(name, {})


OF_RUNS = [
    # loaders
    ('train_dataloader.batch_size', 0, r'sets train_dataloader\.batch_size to 0: give a whole number from 1 on'),
    ('train_dataloader.batch_size', -1, 'to -1: give a whole number from 1 on'),
    ('train_dataloader.batch_size', '4', "to '4': give a whole number from 1 on"),
    ('train_dataloader.batch_size', 2.5, 'whole number'),
    ('train_dataloader.batch_size', True, 'whole number'),
    ('train_dataloader.batch_size', None, r'does not set train_dataloader\.batch_size'),
    ('train_dataloader.num_workers', -1, 'from 0 on'),
    ('train_dataloader.num_workers', 'four', 'a whole number'),
    ('train_dataloader.num_workers', 1.5, 'a whole number from 0 on'),
    ('train_dataloader.batch_size', 4.0, 'whole number'),
    ('train_dataloader.prefetch_factor', 0, 'from 1 on'),
    ('train_dataloader.timeout', -1, 'from 0 on'),
    ('train_dataloader.batchsize', 4, 'did you mean `batch_size`'),
    ('train_dataloader.persistent_workers', 'yes', 'True or False'),
    ('train_dataloader.shuffled', True, 'DataLoader does not take'),
    ('train_dataloader.dataset', None, r'does not set train_dataloader\.dataset'),
    ('train_dataloader.dataset', 'data', 'give a dict with a `type`'),
    ('train_dataloader.dataset.type', 'LabeledImage', 'LabeledImage is not in the'),
    ('train_dataloader.sampler', None, r'does not set train_dataloader\.sampler'),
    ('train_dataloader.sampler.type', 'EndlesSampler', 'EndlesSampler is not in the .* registry'),
    ('train_dataloader.sampler.shuffel', True, 'did you mean `shuffle`'),
    ('train_dataloader.collate_fn', 'pseudo', 'a dict'),
    ('val_dataloader.batch_size', 0, r'val_dataloader\.batch_size to 0'),
    ('val_dataloader', None, 'lacks val_dataloader'),
    # loops
    ('train_cfg.max_iters', 2.5, 'whole number'),
    ('train_cfg.max_iters', 0, 'no length of training: set train_cfg'),
    ('train_cfg.max_iters', -5, 'from 0 on|from 1 to 10000000'),
    ('train_cfg.max_iters', '20', 'whole number'),
    ('train_cfg.max_iters', math.nan, 'to nan: give a'),
    ('train_cfg.val_interval', 0, 'from 1 on'),
    ('train_cfg.max_iterss', 20, 'did you mean `max_iters`'),
    ('train_cfg.type', 'Loop', 'Loop is not in the'),
    ('train_cfg', 5, 'a dict'),
    ('val_cfg.fp17', True, 'fp16'),
    ('train_cfg', None, 'lacks train_cfg'),
    # optimizer
    ('optim_wrapper.optimizer.lr', math.nan, 'to nan: give a number from 0 on'),
    ('optim_wrapper.optimizer.lr', -1, 'from 0 on'),
    ('optim_wrapper.optimizer.lr', math.inf, 'from 0 on'),
    ('optim_wrapper.optimizer.lr', 'fast', 'give a number|from 0 on'),
    ('optim_wrapper.optimizer.weight_decay', -0.1, 'from 0 on'),
    ('optim_wrapper.optimizer.betas', (0.9, 1.5), 'from 0 to below 1'),
    ('optim_wrapper.optimizer.wieght_decay', 0.1, 'did you mean `weight_decay`'),
    ('optim_wrapper.optimizer.type', 'AdmW', 'AdmW is not in the .* did you mean `AdamW`'),
    ('optim_wrapper.optimizer', None, r'does not set optim_wrapper\.optimizer'),
    ('optim_wrapper.accumulative_counts', 0, 'from 1 on'),
    ('optim_wrapper.acumulative_counts', 2, 'did you mean `accumulative_counts`'),
    ('optim_wrapper.clip_grad', dict(max_nrom=1.0), 'did you mean `max_norm`'),
    ('optim_wrapper.clip_grad', dict(max_norm=-1.0), 'above 0'),
    ('optim_wrapper.clip_grad', 1.0, 'a dict'),
    ('optim_wrapper.clip_grad', dict(type='value', max_norm=1.0), 'clip_grad_value_ does not take'),
    ('optim_wrapper.clip_grad', dict(norm_type=2), r'does not set optim_wrapper\.clip_grad\.max_norm'),
    ('optim_wrapper.constructor', 'Default', 'Default is not in the'),
    ('optim_wrapper.paramwise_cfg.norm_decay_multt', 0.0, 'did you mean `norm_decay_mult`'),
    ('optim_wrapper.paramwise_cfg.norm_decay_mult', '0', 'from 0 on'),
    ('optim_wrapper.paramwise_cfg.custom_keys.head', dict(lr_multt=2), 'did you mean `lr_mult`'),
    ('optim_wrapper.paramwise_cfg.custom_keys.head', 2, 'a dict'),
    ('optim_wrapper', 'AdamW', 'give a dict'),
    # schedules
    ('param_scheduler.0.end', 0, 'from 1 on'),
    ('param_scheduler.1.end', 2, 'a schedule that begins at'),
    ('param_scheduler.0.begin', -1, 'from 0 on'),
    ('param_scheduler.0.start_factor', 0, 'above 0'),
    ('param_scheduler.0.start_factor', 'a', 'number'),
    ('param_scheduler.0.start_facter', 0.1, 'did you mean `start_factor`'),
    ('param_scheduler.0.type', 'LinearLr', 'did you mean `LinearLR`'),
    ('param_scheduler', 'cosine', 'give a dict'),
    # hooks, logs
    ('default_hooks.checkpoint.interval', 0, '-1 or a whole number from 1 on'),
    ('default_hooks.checkpoint.interval', '10', 'whole number'),
    ('default_hooks.checkpoint.max_keep_ckpts', -3, 'whole number from 1 on'),
    ('default_hooks.checkpoint.max_keep_ckptss', 1, 'did you mean `max_keep_ckpts`'),
    ('default_hooks.chekpoint', dict(interval=10), 'did you mean `checkpoint`'),
    ('default_hooks.logger.interval', 0, 'from 1 on'),
    ('default_hooks.logger', 'off', 'give a dict'),
    ('default_hooks', [], 'a dict'),
    ('custom_hooks', dict(type='ThroughputHook'), 'a list'),
    ('custom_hooks', [dict(type='ThroughputHock')], 'ThroughputHock is not in the'),
    ('custom_hooks', [dict(type='EMAHook', momentumm=0.1)], 'did you mean `momentum`'),
    ('log_processor.by_epochs', False, 'did you mean `by_epoch`'),
    ('log_processor.window_size', 0, 'from 1 on'),
    ('log_level', 'LOUD', 'DEBUG'),
    ('visualizer.vis_backends.0.type', 'LocalBackend', 'LocalBackend is not in the'),
    ('visualizer.type', None, 'has no `type` in visualizer'),
    # the rest
    ('efficient_conv_bn_eval', 3, 'a list|a text'),
    ('env_cfg.cudnn_benchmarkk', True, 'did you mean `cudnn_benchmark`'),
    ('env_cfg.mp_cfg.mp_start_method', 'frok', "'fork'"),
    ('env_cfg.mp_cfg.opencv_num_thread', 0, 'did you mean `opencv_num_threads`'),
    ('randomness.seed', 2**70, 'from 0 to 2147483647'),
    ('randomness.seed', -1, 'from 0 to'),
    ('randomness.seed', 1.5, 'whole number'),
    ('randomness.seeds', 1, 'did you mean `seed`'),
    ('auto_scale_lr', dict(enabled=True), 'did you mean `enable`'),
    ('auto_scale_lr', dict(enable=True, _delete_=True), 'without base_batch_size'),
    ('auto_scale_lr', dict(enable=True, base_batch_size=0), 'from 1 on'),
    ('sync_bn', 'zzz', "'torch' or 'mmcv'"),
    ('find_unused_parameters', 'no', 'True or False'),
    ('default_scope', 'nope', "default_scope to 'nope'"),
    ('default_scope', 5, 'default_scope to 5'),
    ('load_from', 5, 'a text or None'),
    ('work_dir', 5, 'a text'),
    ('resume', 'yes', 'True or False'),
    ('model', 'lvvit', 'needs a dict `model`'),
    ('model', None, 'needs a dict `model`'),
    ('model.type', 'Clasifier', 'Clasifier is not in the'),
    ('model.type', 5, 'give the name of a class'),
    ('model.data_preprocessor.type', 'Preprocessor', 'Preprocessor is not in the'),
]


@pytest.mark.parametrize(('option', 'value', 'said'), OF_RUNS)
@pytest.mark.parametrize('name', ['demo/pretrain', 'demo/upernet'])
def test_what_cannot_be_in_any_run_is_told(name, option, value, said):
    refused(name, option, value, said)


@pytest.mark.parametrize(
    ('option', 'value', 'said'),
    [
        ('model.network.model_name', 5, 'a text'),
        ('model.network.stem_widht', 8, 'did you mean `stem_width`'),
        ('model.network.depth', 0, 'from 1 on'),
        ('model.network.depth', 'a', 'number'),
        ('model.network.num_heads', -1, 'from 1 on'),
        ('model.network.drop_path_rate', 2, 'from 0 to below 1'),
        ('model.network.drop_path_rate', -0.1, 'from 0 to below 1'),
        ('model.network.attn_drop_rate', math.nan, 'number'),
        ('model.network.img_size', 0, 'from 1 on'),
        ('model.network.img_size', (64, -1), 'from 1 on'),
        ('model.network.mix_token', 'no', 'True or False'),
        ('model.network.pretrained_cfg_overlay', dict(input_sizee=(3, 8, 8)), 'did you mean `input_size`'),
        ('model.targets.smoothing', 2, 'from 0 to below 1'),
        ('model.targets.smoothing', 'a', 'from 0 to below 1'),
        ('model.targets.k', 'a', 'a whole number from 1 on or None'),
        ('model.targets.k', 0, 'from 1 on'),
        ('model.targets.temperature', 0, 'above 0'),
        ('model.targets.geometry', 'exakt', "'exact' or 'released'"),
        ('model.targets.type', 'TokenLabel', 'did you mean `TokenLabels`'),
        ('model.targets', None, 'a dict'),
        ('model.loss.dense_wieght', 2.0, 'did you mean `dense_weight`'),
        ('model.loss.dense_weight', -1, 'from 0 on'),
        ('model.loss', dict(dense_weight=0, cls_weight=0.0), 'nothing is learned'),
        ('model.data_preprocessor.erasing', 3, 'from 0 to 1'),
        ('model.data_preprocessor.mean', (0.5, 0.5), '3 values'),
        ('model.data_preprocessor.mixup', -1, 'from 0 on'),
        ('model.data_preprocessor.std', (0.2, 0.0, 0.2), 'above 0'),
        ('model.compile', 5, 'True or False or a text'),
        ('model.grad_checkpointing', 'x', 'True or False'),
        ('train_dataloader.dataset.transform.hflip', 9, 'from 0 to 1'),
        ('train_dataloader.dataset.transform.scale', (1, 0.5), 'the least first'),
        ('train_dataloader.dataset.transform.scale', 0.5, '2 values'),
        ('train_dataloader.dataset.transform.ratio', (0, 1), 'above 0'),
        ('train_dataloader.dataset.transform.size', 0, 'from 1 on'),
        ('train_dataloader.dataset.transform.sise', 8, 'did you mean `size`'),
        ('train_dataloader.dataset.transform.type', 'Train', 'Train is not in the'),
        ('val_dataloader.dataset.transform.crop_pct', 1.5, 'above 0 and at most 1'),
        ('train_dataloader.dataset.root', 5, 'a text'),
        ('train_dataloader.dataset.label_stores', 'x', 'did you mean `label_store`'),
        ('val_evaluator.topk', 5, 'a list'),
        ('val_evaluator.topk', (0,), 'from 1 on'),
        ('custom_hooks.0.interval', 0, 'from 1 on'),
        ('custom_hooks.0.limits', 3, 'did you mean `limit`'),
        ('default_hooks.ema.momentum', 2, 'above 0 and below 1'),
        ('default_hooks.ema.gama', 9, 'did you mean `gamma`'),
        ('optim_wrapper.dtype', 'float99', "'bfloat16'"),
        ('optim_wrapper.loss_scale', 'dynamik', "'dynamic'"),
        ('keep_global_batch', 'yes', 'True or False'),
        ('initial_weights', 5, 'a text or None'),
    ],
)
def test_what_cannot_be_in_a_pretraining_is_told(option, value, said):
    refused('demo/pretrain', option, value, said)


@pytest.mark.parametrize(
    ('option', 'value', 'said'),
    [
        ('model.backbone.drop_path_rate', 2, 'from 0 to below 1'),
        ('model.backbone.embed_dimm', 96, 'did you mean `embed_dim`'),
        ('model.backbone.depth', 2.5, 'whole number'),
        ('model.backbone.out_indices', 'abc', 'a list'),
        ('model.backbone.out_indices', (0, 'a'), 'whole number'),
        ('model.backbone.frozen_stages', 'all', 'whole number'),
        ('model.backbone.arch', 5, 'a text or None'),
        ('model.backbone.init_cfg.type', 'Pretraned', 'did you mean `Pretrained`'),
        ('model.backbone.init_cfg', dict(checkpoint='x', _delete_=True), r'has no `type` in model\.backbone\.init_cfg'),
        ('model.backbone.init_cfg.chekpoint', 'x', 'did you mean `checkpoint`'),
        ('model.backbone.type', 'LVVit', 'did you mean `LVViT`'),
        ('model.backbone', 3, 'a dict'),
        ('model.neck.in_channels', 'a', 'whole number'),
        ('model.neck.in_channels', 0, 'from 1 on'),
        ('model.decode_head.chanels', 64, 'did you mean `channels`'),
        ('model.decode_head.channels', 0, 'from 1 on'),
        ('model.decode_head.dropout_ratio', 2, 'from 0 to below 1'),
        ('model.decode_head.dropout_ratio', 'a', 'a number'),
        ('model.decode_head.align_corners', 'Flase', 'True or False'),
        ('model.decode_head.num_classes', 0, 'a whole number from 1 on'),
        ('model.decode_head.num_classes', '3', 'a whole number from 1 on'),
        ('model.decode_head.in_channels', '96', 'from 1 on'),
        ('model.decode_head.loss_decode', 'CrossEntropyLoss', 'a dict'),
        ('model.decode_head.loss_decode.type', 'CrossEntropy', 'CrossEntropy is not in the'),
        ('model.decode_head.loss_decode.loss_weight', -1, 'from 0 on'),
        ('model.decode_head.loss_decode.loss_weights', 1.0, 'did you mean `loss_weight`'),
        ('model.decode_head.loss_decode.reduction', 'zzz', "'mean'"),
        ('model.auxiliary_head.in_channels', -96, 'from 1 on'),
        ('model.test_cfg', dict(mode='slide', crop_size=(64, 64), strid=(32, 32)), 'did you mean `stride`'),
        ('model.test_cfg.windows_per_batch', '4', 'a whole number from 1 on'),
        ('model.data_preprocessor.size', 'a', 'a list'),
        ('model.data_preprocessor.std', (0, 1, 1), 'above 0'),
        ('model.data_preprocessor.bgr_to_rbg', True, 'did you mean `bgr_to_rgb`'),
        ('train_dataloader.dataset.data_prefix', dict(img_paths='x'), 'did you mean `img_path`'),
        ('train_dataloader.dataset.piplines', [], 'did you mean `pipeline`'),
        ('train_dataloader.dataset.pipeline.3.crop_size', (0, 64), 'from 1 on'),
        ('train_dataloader.dataset.pipeline.3.cat_max_ratio', 2, 'above 0 and at most 1'),
        ('train_dataloader.dataset.pipeline.2.ratio_range', (2.0, 0.5), 'the least first'),
        ('train_dataloader.dataset.pipeline.3.type', 'RandomCrp', 'did you mean `RandomCrop`'),
        ('train_dataloader.dataset.pipeline.3', 'RandomCrop', 'give a dict with a `type`'),
        ('train_dataloader.dataset.pipeline', [dict(type='RandomFlip', prob=9)], 'from 0 to 1'),
        ('val_evaluator.iou_metrics', 5, 'a list'),
        ('optim_wrapper.paramwise_cfg', dict(layer_decay=2), 'at most 1'),
    ],
)
def test_what_cannot_be_in_a_segmentation_is_told(option, value, said):
    refused('demo/upernet', option, value, said)


@pytest.mark.parametrize(
    ('name', 'option', 'value'),
    [
        ('demo/pretrain', 'default_hooks.checkpoint', None),
        ('demo/pretrain', 'custom_hooks', []),
        ('demo/pretrain', 'param_scheduler', None),
        ('demo/pretrain', 'param_scheduler', dict(type='PolyLR', by_epoch=False)),
        ('demo/pretrain', 'optim_wrapper.clip_grad', dict(max_norm=1.0, norm_type=math.inf)),
        ('demo/pretrain', 'optim_wrapper.clip_grad', dict(type='value', clip_value=0.1)),
        ('demo/pretrain', 'optim_wrapper.optimizer', dict(type='SGD', lr=0, momentum=0.9, _delete_=True)),
        ('demo/pretrain', 'optim_wrapper.loss_scale', 512.0),
        ('demo/pretrain', 'train_dataloader.num_workers', 0),
        ('demo/pretrain', 'train_dataloader.drop_last', True),
        ('demo/pretrain', 'train_dataloader.dataset.transform.size', (64, 48)),
        ('demo/pretrain', 'train_dataloader.dataset.transform.scale', [1, 1]),
        ('demo/pretrain', 'model.compile', 'inductor'),
        ('demo/pretrain', 'model.network.model_name', 'resnet18'),
        (
            'demo/pretrain',
            'default_hooks.ema',
            dict(type='EMAHook', ema_type='MomentumAnnealingEMA', gamma=50, _delete_=True),
        ),
        ('demo/pretrain', 'custom_hooks', [dict(type='ThroughputHook', priority='LOW')]),
        ('demo/pretrain', 'randomness.seed', None),
        ('demo/upernet', 'train_cfg', dict(by_epoch=False, max_iters=4e1, val_interval=20, _delete_=True)),
        ('demo/upernet', 'model.decode_head.out_channels', None),
        ('demo/upernet', 'model.decode_head.norm_cfg', dict(type='BN', requires_grad=True, eps=1e-3)),
        ('demo/upernet', 'model.decode_head.loss_decode', [dict(type='DiceLoss', loss_weight=3.0)]),
        ('demo/upernet', 'model.backbone.init_cfg.ema', False),
        (
            'demo/upernet',
            'model.test_cfg',
            dict(mode='slide', crop_size=(64, 64), stride=(32, 32), precision='float16'),
        ),
        ('demo/upernet', 'train_dataloader.dataset.metainfo', dict(classes=['a'] * 11)),
        (
            'demo/upernet',
            'train_dataloader.dataset',
            dict(type='RepeatDataset', times=2, dataset=dict(type='DigitScenes'), _delete_=True),
        ),
        ('demo/upernet', 'val_evaluator', [dict(type='IoUMetric', iou_metrics=['mIoU', 'mDice'])]),
        ('demo/upernet', 'env_cfg.dist_cfg.timeout', 1800),
        ('demo/upernet', 'visualizer.name', 'mine'),
        ('demo/upernet', 'val_dataloader', None),
    ],
)
def test_what_can_be_is_left_alone(name, option, value):
    options = {option: value}
    if option == 'val_dataloader':
        options |= {'val_cfg': None, 'val_evaluator': None}
    check(name, options)


@pytest.fixture
def own_classes():
    """A person's own classes, with hints that mean nothing."""

    @MODELS.register_module(name='OwnModel', force=True)
    class OwnModel(nn.Module):
        def __init__(self, depth: str, lr=1, **kwargs) -> None:
            super().__init__()

    @DATASETS.register_module(name='OwnData', force=True)
    class OwnData:
        def __init__(self, prob: float = 1.0) -> None:
            pass

    yield
    MODELS.module_dict.pop('OwnModel')
    DATASETS.module_dict.pop('OwnData')


def test_a_persons_own_classes_are_compared_by_name_alone(own_classes):
    model = dict(type='OwnModel', depth=3, lr=-1, anything=dict(type='nothing known'), _delete_=True)
    data = dict(type='OwnData', prob=9, _delete_=True)
    check('demo/pretrain', {'model': model, 'train_dataloader.dataset': data})
    refused(
        'demo/pretrain', 'train_dataloader.dataset', dict(type='OwnData', porb=1, _delete_=True), 'did you mean `prob`'
    )


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (
            {
                'train_cfg': dict(type='EpochBasedTrainLoop', max_epochs=2),
                'train_dataloader.sampler': dict(type='InfiniteSampler', shuffle=True),
            },
            'train',
        ),
        ({'train_cfg': dict(by_epoch=True, max_epochs=2)}, 'train'),
        ({'val_dataloader.sampler': dict(type='InfiniteSampler', _delete_=True)}, 'val'),
    ],
)
@pytest.mark.parametrize('name', ['demo/pretrain', 'demo/upernet'])
def test_a_loop_that_waits_for_a_sampler_without_end_is_told_before_anything_is_built(name, options, said):
    for key, value in list(options.items()):
        if isinstance(value, dict):
            options = options | {key: value | {'_delete_': True}}
    with pytest.raises(UserError, match=rf'{said}_dataloader\.sampler never ends'):
        check(name, options)
