"""The configs of UperNet over timm's backbones, and how large UperNet is over each of ours."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmseg.registry import MODELS

import mmseg_ext  # noqa: F401  (registers the names)
from tests.places import CONFIGS
from tokenlabel.engine.length import with_ends

SIZES = {
    # arch: width, out_indices, channels of the heads, millions of parameters as published
    'lvvit_s': (384, (6, 9, 12, 15), 256, 44),
    'lvvit_m': (512, (10, 13, 16, 19), 256, 77),
    'lvvit_l': (768, (14, 17, 20, 23), 512, 209),
}


@pytest.fixture(autouse=True)
def mmseg_scope():
    init_default_scope('mmseg')


def parameters(config: Config) -> float:
    with torch.device('meta'):
        model = MODELS.build(config.model)
    return sum(x.numel() for x in model.parameters()) / 1e6


@pytest.mark.parametrize('arch', SIZES)
def test_upernet_has_the_published_number_of_parameters(arch):
    width, out_indices, channels, millions = SIZES[arch]
    config = Config.fromfile(CONFIGS / 'upernet_lvvit.py')
    config.model.backbone.update(arch=arch, out_indices=out_indices)
    config.model.neck.in_channels = width
    config.model.decode_head.update(in_channels=[width] * 3 + [2048], channels=channels)
    config.model.auxiliary_head.update(in_channels=width, channels=channels)
    assert parameters(config) == pytest.approx(millions, abs=0.5)


@pytest.mark.parametrize(('name', 'millions'), [('families/upernet_deit_s.py', 41), ('families/upernet_swin_t.py', 60)])
def test_upernet_over_timm_has_the_stated_number_of_parameters(name, millions):
    assert parameters(Config.fromfile(CONFIGS / name)) == pytest.approx(millions, abs=0.5)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['families/upernet_deit_s.py', 'families/upernet_swin_t.py'])
def test_a_config_trains_and_validates_and_no_parameter_is_left_out(name, ade20k, tmp_path):
    config = Config.fromfile(CONFIGS / name)
    for split in ('train', 'val', 'test'):
        loader = config[f'{split}_dataloader']
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.update(data_root=str(ade20k), indices=[0])
        for step in loader.dataset.pipeline:
            step.update({key: (128, 64) for key in ('scale',) if key in step})
            step.update({key: (64, 64) for key in ('crop_size',) if key in step})
    config.train_dataloader.batch_size = 2
    config.model.data_preprocessor.size = (64, 64)
    config.model.backbone.pretrained = False
    config.optim_wrapper.type = 'OptimWrapper'
    config.train_cfg.update(max_iters=1, val_interval=1)
    config.param_scheduler, _ = with_ends(config.param_scheduler, config.train_cfg)
    config.default_hooks.checkpoint = dict(type='CheckpointHook', interval=-1)
    config.visualizer.vis_backends = [dict(type='LocalVisBackend')]
    config.work_dir = str(tmp_path)
    config.log_level = 'ERROR'

    runner = Runner.from_cfg(config)
    runner.train()

    stepped = runner.optim_wrapper.optimizer.state  # holds what received a gradient
    assert [name for name, x in runner.model.named_parameters() if x not in stepped] == []
    assert 0 <= runner.message_hub.get_scalar('val/mIoU').current() <= 100
