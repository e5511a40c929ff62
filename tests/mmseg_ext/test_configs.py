"""The segmentation configs: what they build, that they train and test, and that users can inherit from them."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmseg.registry import MODELS

from tokenlabel.engine.config_scope import enable_mmseg_scope

CONFIGS = Path(__file__).parents[2] / 'configs'
OURS = ['upernet_lvvit.py', 'fpn_lvvit.py']


@pytest.fixture(autouse=True)
def mmseg_scope(monkeypatch):
    monkeypatch.setitem(MODULE2PACKAGE, 'mmseg', MODULE2PACKAGE['mmseg'])
    enable_mmseg_scope()
    init_default_scope('mmseg')


def one_step(config: Config, ade20k: Path, work_dir: Path) -> Config:
    """The same run, cut down to one float32 step on two 128x128 crops and a validation, without pretrained weights."""
    crop = (128, 128)
    for split in ('train', 'val', 'test'):
        config[f'{split}_dataloader'].update(num_workers=0, persistent_workers=False)
        config[f'{split}_dataloader'].dataset.data_root = str(ade20k)
        for step in config[f'{split}_dataloader'].dataset.pipeline:
            step.update({key: (256, 128) for key in ('scale',) if key in step})
            step.update({key: crop for key in ('crop_size',) if key in step})
    config.train_dataloader.batch_size = 2
    config.model.data_preprocessor.size = crop
    config.model.backbone.init_cfg = None
    config.optim_wrapper.type = 'OptimWrapper'
    config.train_cfg.update(max_iters=1, val_interval=1)
    config.default_hooks.checkpoint = dict(type='CheckpointHook', interval=-1)
    config.visualizer.vis_backends = [dict(type='LocalVisBackend')]
    config.work_dir = str(work_dir)
    config.log_level = 'ERROR'
    return config


@pytest.mark.parametrize('name', OURS)
def test_a_config_trains_and_validates_and_no_parameter_is_left_out(name, ade20k, tmp_path):
    runner = Runner.from_cfg(one_step(Config.fromfile(CONFIGS / name), ade20k, tmp_path))
    runner.train()
    stepped = runner.optim_wrapper.optimizer.state  # holds what received a gradient
    assert [name for name, x in runner.model.named_parameters() if x not in stepped] == []
    assert 0 <= runner.message_hub.get_scalar('val/mIoU').current() <= 100


def test_multi_scale_testing_resizes_to_the_usual_size_times_each_ratio():
    pipeline = Config.fromfile(CONFIGS / 'upernet_lvvit.py').tta_pipeline
    scales = [step.scale for step in pipeline[1].transforms[0]]
    assert scales == [(2048 * ratio, 512 * ratio) for ratio in (0.5, 0.75, 1, 1.25, 1.5, 1.75)]


def test_multi_scale_testing_runs_on_images_of_any_size(ade20k, tmp_path):
    config = one_step(Config.fromfile(CONFIGS / 'upernet_lvvit.py'), ade20k, tmp_path)
    config.test_dataloader.dataset.update(pipeline=config.tta_pipeline, indices=[0])
    config.model = config.tta_model | dict(module=config.model)
    for step in config.tta_pipeline[1].transforms[0]:
        step.scale = tuple(size // 8 for size in step.scale)
    assert 0 <= Runner.from_cfg(config).test()['mIoU'] <= 100


def test_upernet_s_has_44_million_parameters():
    config = Config.fromfile(CONFIGS / 'upernet_lvvit.py')
    with torch.device('meta'):
        model = MODELS.build(config.model)
    assert sum(x.numel() for x in model.parameters()) / 1e6 == pytest.approx(44, abs=1)


@pytest.mark.parametrize(('name', 'weight_decay'), [('upernet_lvvit.py', 0.01), ('fpn_lvvit.py', 1e-4)])
def test_norms_and_embeddings_are_not_decayed(name, weight_decay):
    config = Config.fromfile(CONFIGS / name)
    model = MODELS.build(config.model)
    wrapper = build_optim_wrapper(model, config.optim_wrapper | dict(type='OptimWrapper'))
    decay = {id(group['params'][0]): group['weight_decay'] for group in wrapper.optimizer.param_groups}
    for path, parameter in model.named_parameters():
        module = model.get_submodule(path.rpartition('.')[0])
        is_norm = isinstance(module, (torch.nn.LayerNorm, torch.nn.modules.batchnorm._BatchNorm))
        exempt = is_norm or path in ('backbone.pos_embed', 'backbone.cls_token')
        assert decay[id(parameter)] == (0 if exempt else weight_decay), path


@pytest.mark.parametrize('name', OURS)
def test_a_pretrained_file_is_named_on_the_command_line(name):
    config = Config.fromfile(CONFIGS / name)
    config.merge_from_dict({'model.backbone.init_cfg.checkpoint': 'mine.pth'})
    assert config.model.backbone.init_cfg == dict(type='Pretrained', checkpoint='mine.pth')
