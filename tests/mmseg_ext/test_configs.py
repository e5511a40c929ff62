"""The segmentation configs: what they build, that they train and test, and what of them is published."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmseg.registry import MODELS

from mmseg_ext.checks.config_parts import heads_of
from mmseg_ext.checks.datasets import check_datasets
from mmseg_ext.checks.num_classes import settle_num_classes
from tests.places import CONFIGS
from tests.segmentation_layouts import LAYOUTS
from tokenlabel.engine.config.mmseg_scope import enable_mmseg_scope
from tokenlabel.engine.config.run_config import load_config
from tokenlabel.engine.length import with_ends

# Every config with a head over LV-ViT, and the layout of its data.
HEADS = ('upernet', 'fpn')
SIZES = {f'{head}_lvvit{size}.py': 'ade20k' for head in HEADS for size in ('', '_t', '_m', '_l')}
OTHER_DATA = {
    f'{folder}/{head}_lvvit.py': data
    for head in HEADS
    for folder, data in {
        'cityscapes': 'cityscapes',
        'voc12': 'voc12_aug',
        'pascal_context': 'pascal_context',
        'coco_stuff': 'coco_stuff164k',
    }.items()
}
EXPERIMENTS = {**SIZES, **OTHER_DATA, 'custom.py': 'own_data'}
# Those of more parameters than `_t` on the same data.
LARGER = [name for name in SIZES if not name.endswith('_t.py')]
CLASSES = dict(ade20k=150, cityscapes=19, voc12_aug=21, pascal_context=59, coco_stuff164k=171, own_data=3)


@pytest.fixture(autouse=True)
def mmseg_scope(monkeypatch):
    monkeypatch.setitem(MODULE2PACKAGE, 'mmseg', MODULE2PACKAGE['mmseg'])
    enable_mmseg_scope()
    init_default_scope('mmseg')


@pytest.fixture(scope='session')
def data(tmp_path_factory) -> dict[str, Path]:
    """Folders in the layout of each data set."""
    roots = {name: tmp_path_factory.mktemp(name) for name in LAYOUTS}
    for name, root in roots.items():
        LAYOUTS[name](root)
    return roots


def one_step(config: Config, root: Path, work_dir: Path, crop: tuple[int, int] = (64, 64)) -> Config:
    """The same run, cut down to one float32 step on two small crops and a validation, without pretrained weights."""
    for split in ('train', 'val', 'test'):
        loader = config[f'{split}_dataloader']
        loader.update(num_workers=0, persistent_workers=False)
        for dataset in loader.dataset.get('datasets', [loader.dataset]):
            dataset.data_root = str(root)
            for step in dataset.pipeline:
                step.update({key: (2 * crop[1], crop[0]) for key in ('scale',) if key in step})
                step.update({key: crop for key in ('crop_size',) if key in step})
    config.train_dataloader.batch_size = 2
    config.model.data_preprocessor.size = crop
    config.model.backbone.init_cfg = None
    if config.model.test_cfg.mode == 'slide':
        config.model.test_cfg.update(crop_size=crop, stride=(43, 43))
    config.optim_wrapper.type = 'OptimWrapper'
    config.train_cfg.update(max_iters=1, val_interval=1)
    config.param_scheduler, _ = with_ends(config.param_scheduler, config.train_cfg)
    config.default_hooks.checkpoint = dict(type='CheckpointHook', interval=-1, save_last=False)
    config.visualizer.vis_backends = [dict(type='LocalVisBackend')]
    config.work_dir = str(work_dir)
    config.log_level = 'ERROR'
    return config


def read(name: str, data: dict[str, Path]) -> Config:
    """The config of that name; the places that your own data have are parts of paths below the root."""
    config = Config.fromfile(CONFIGS / name)
    if name == 'custom.py':
        for split in ('train', 'val', 'test'):
            prefix = config[f'{split}_dataloader'].dataset.data_prefix
            prefix.update({key: folder.removeprefix('data/mine/') for key, folder in prefix.items()})
    return config


@pytest.mark.parametrize('name', [name for name in EXPERIMENTS if name not in LARGER])
def test_a_config_trains_and_validates_and_no_parameter_is_left_out(name, data, tmp_path):
    config = one_step(read(name, data), data[EXPERIMENTS[name]], tmp_path)
    check_datasets(config, ('train', 'val', 'test'))
    runner = Runner.from_cfg(config)
    runner.train()
    stepped = runner.optim_wrapper.optimizer.state  # holds what received a gradient
    assert [name for name, x in runner.model.named_parameters() if x not in stepped] == []
    assert 0 <= runner.message_hub.get_scalar('val/mIoU').current() <= 100


@pytest.mark.parametrize('name', LARGER)
def test_no_parameter_of_a_larger_config_is_left_out(name):
    config = Config.fromfile(CONFIGS / name)
    settle_num_classes(config)
    config.model.backbone.init_cfg = None
    with torch.device('meta'):
        model = MODELS.build(config.model)
        features = model.extract_feat(torch.empty(2, 3, *config.model.data_preprocessor.size))
    heads = [model.decode_head, *([model.auxiliary_head] if model.with_auxiliary_head else [])]
    sum(head(features).sum() for head in heads).backward()
    assert [name for name, x in model.named_parameters() if x.grad is None] == []


@pytest.mark.parametrize('name', EXPERIMENTS)
def test_crops_classes_and_schedules_of_a_config_agree(name):
    config = Config.fromfile(CONFIGS / name)
    settle_num_classes(config)
    model, classes = config.model, CLASSES[EXPERIMENTS[name]]
    crop = model.data_preprocessor.size
    train = config.train_dataloader.dataset
    pipeline = train.get('datasets', [train])[0].pipeline
    assert crop == model.backbone.img_size == pipeline[3].crop_size
    if model.test_cfg.mode == 'slide':
        assert model.test_cfg.crop_size == crop
    assert model.num_classes == classes and {head.num_classes for head, _ in heads_of(config)} == {classes}
    assert 'end' not in config.param_scheduler[-1]  # it ends with the training


@pytest.mark.parametrize('data', [name for name in LAYOUTS if name != 'own_data'])
def test_multi_scale_testing_resizes_to_the_usual_size_times_each_ratio(data):
    config = Config.fromfile(CONFIGS / '_base_/datasets' / f'{data}.py')
    scales = [step.scale for step in config.tta_pipeline[1].transforms[0]]
    width, height = config.test_pipeline[1].scale
    assert scales == [(width * ratio, height * ratio) for ratio in (0.5, 0.75, 1, 1.25, 1.5, 1.75)]


def test_multi_scale_testing_runs_on_images_of_any_size(data, tmp_path):
    config = one_step(Config.fromfile(CONFIGS / 'upernet_lvvit_t.py'), data['ade20k'], tmp_path)
    config.test_dataloader.dataset.update(pipeline=config.tta_pipeline, indices=[0])
    config.model = config.tta_model | dict(module=config.model)
    for step in config.tta_pipeline[1].transforms[0]:
        step.scale = tuple(size // 8 for size in step.scale)
    assert 0 <= Runner.from_cfg(config).test()['mIoU'] <= 100


@pytest.mark.parametrize(
    ('name', 'millions'), [('upernet_lvvit', 44), ('upernet_lvvit_m', 77), ('upernet_lvvit_l', 209)]
)
def test_upernet_has_as_many_parameters_as_published(name, millions):
    config = Config.fromfile(CONFIGS / f'{name}.py')
    with torch.device('meta'):
        model = MODELS.build(config.model)
    assert sum(x.numel() for x in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.5)


@pytest.mark.parametrize(('name', 'rate'), [('upernet_lvvit', 0.1), ('upernet_lvvit_m', 0.2), ('upernet_lvvit_l', 0.5)])
def test_stochastic_depth_is_the_published_rate_and_l_keeps_its_divisor(name, rate):
    config = Config.fromfile(CONFIGS / f'{name}.py').model.backbone
    config.init_cfg = None
    with torch.device('meta'):
        backbone = MODELS.build(config)
    assert backbone.blocks[-1].drop_path1.drop_prob == pytest.approx(rate)
    assert len(backbone.blocks) == backbone.depth == max(config.out_indices) + 1
    assert 'residual_divisor' not in config


@pytest.mark.parametrize(('name', 'weight_decay'), [('upernet_lvvit_t.py', 0.01), ('fpn_lvvit_t.py', 1e-4)])
def test_norms_biases_and_tokens_are_not_decayed(name, weight_decay):
    config = Config.fromfile(CONFIGS / name)
    model = MODELS.build(config.model)
    wrapper = build_optim_wrapper(model, config.optim_wrapper | dict(type='OptimWrapper'))
    decay = {id(group['params'][0]): group['weight_decay'] for group in wrapper.optimizer.param_groups}
    for path, parameter in model.named_parameters():
        module = model.get_submodule(path.rpartition('.')[0])
        is_norm = isinstance(module, (torch.nn.LayerNorm, torch.nn.modules.batchnorm._BatchNorm))
        exempt = is_norm or path.endswith('bias') or path in ('backbone.pos_embed', 'backbone.cls_token')
        assert decay[id(parameter)] == (0 if exempt else weight_decay), path


@pytest.mark.parametrize('name', SIZES)
def test_a_pretrained_file_is_named_on_the_command_line(name):
    config = Config.fromfile(CONFIGS / name)
    config.merge_from_dict({'model.backbone.init_cfg.checkpoint': 'mine.pth'})
    assert config.model.backbone.init_cfg == dict(type='Pretrained', checkpoint='mine.pth')


def test_parts_of_mmsegmentation_s_configs_are_bases_too(tmp_path):
    (tmp_path / 'mine.py').write_text("_base_ = ['mmseg::_base_/datasets/cityscapes.py']\ncrop_size = (64, 64)\n")
    config = load_config(tmp_path / 'mine.py')
    assert config.train_dataloader.dataset.type == 'CityscapesDataset'
    assert config.crop_size == (64, 64)
