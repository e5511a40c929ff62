"""Weights that a run leaves: tested with any hook, and where another run starts."""

import copy
import math

import pytest
import torch
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.hooks import EMAHook

from mmseg_ext.checkpoints.evaluated_weights import load_trained_weights
from mmseg_ext.checkpoints.other_classes import start_from_one_file
from tests.tiny_segmentation import tiny_config
from tokenlabel.engine.config.run_config import register_imports
from tokenlabel.engine.runner import Runner
from tokenlabel.errors import UserError


@pytest.fixture
def config(tmp_path, monkeypatch) -> Config:
    """A tiny UperNet on two images; two steps, a checkpoint and a validation, with EMA weights."""
    monkeypatch.setitem(MODULE2PACKAGE, 'mmseg', MODULE2PACKAGE['mmseg'])
    config = tiny_config(tmp_path)
    config.custom_hooks = [dict(type='EMAHook', momentum=0.5)]
    config.optim_wrapper.optimizer.lr = 0.01
    config.param_scheduler = []
    config.train_cfg.max_iters = config.train_cfg.val_interval = config.default_hooks.checkpoint.interval = 2
    register_imports(config)
    return config


def test_weights_are_tested_whatever_hooks_know_of_them(config, tmp_path):
    trained = Runner.from_cfg(copy.deepcopy(config))
    trained.train()
    saved = torch.load(tmp_path / 'run/iter_2.pth', weights_only=False)
    averaged, last = saved['state_dict'], saved['ema_state_dict']
    name = 'decode_head.conv_seg.weight'
    assert not torch.equal(averaged[name], last[f'module.{name}'])
    tested = Runner.from_cfg(copy.deepcopy(config))
    load_trained_weights(tested, tmp_path / 'run/iter_2.pth')
    [hook] = [hook for hook in tested.hooks if isinstance(hook, EMAHook)]
    assert torch.equal(tested.model.get_parameter(name), averaged[name])
    assert torch.equal(hook.ema_model.module.get_parameter(name), averaged[name])
    scores = tested.test()
    assert scores['mIoU'] == pytest.approx(trained.message_hub.get_scalar('val/mIoU').current())
    bare = tmp_path / 'bare.pth'
    torch.save(averaged, bare)
    again = Runner.from_cfg(copy.deepcopy(config))
    load_trained_weights(again, bare)
    assert again.test() == scores


def test_a_score_that_is_no_number_is_not_the_best_and_hides_none(config, tmp_path):
    runner = Runner.from_cfg(config)
    runner.train()
    best = tmp_path / 'run/best_mIoU_iter_2.pth'
    assert best.is_file()
    runner.message_hub.update_info('best_score', math.nan)
    runner.call_hook('after_val_epoch', metrics=dict(mIoU=math.nan))
    assert 'best_score' not in runner.message_hub.runtime_info
    runner.call_hook('after_val_epoch', metrics=dict(mIoU=1.0))
    assert runner.message_hub.get_info('best_score') == 1.0


def test_a_model_of_other_classes_gives_backbone_and_neck(config, tmp_path):
    config.custom_hooks = []
    torch.manual_seed(3)
    other = Runner.from_cfg(copy.deepcopy(config))
    state = other.model.state_dict()
    torch.save(dict(state_dict=state), tmp_path / 'other.pth')
    for head in (config.model.decode_head, config.model.auxiliary_head):
        head.num_classes = 7
    config.initial_weights = str(tmp_path / 'other.pth')
    config.model.backbone.init_cfg = dict(type='Pretrained', checkpoint='nowhere.pth')
    start_from_one_file(config)
    started = Runner.from_cfg(copy.deepcopy(config))
    started._init_model_weights()
    started.load_or_resume()
    own = started.model.state_dict()
    for name, value in own.items():
        is_head = name.startswith(('decode_head', 'auxiliary_head'))
        assert is_head or torch.equal(value, state[name]), name
    assert len(own['decode_head.conv_seg.weight']) == 7
    config.initial_weights = None
    with pytest.raises(UserError, match=r'other\.pth does not fit this model .* set initial_weights to it'):
        Runner.from_cfg(config).load_checkpoint(str(tmp_path / 'other.pth'))


@pytest.mark.parametrize('loader', ['train', 'val', 'test'])
def test_a_loop_that_waits_for_the_end_of_an_endless_sampler_is_refused(config, loader):
    endless = dict(type='InfiniteSampler', shuffle=True)
    if loader == 'train':
        config.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
    config[f'{loader}_dataloader'].sampler = endless
    runner = Runner.from_cfg(config)
    with pytest.raises(UserError, match=rf'{loader}_dataloader\.sampler never ends, and {loader}_cfg waits'):
        runner.test() if loader == 'test' else runner.train()
