"""Types of MMEngine that a config names, and ours that run in their place."""

import pytest
from mmengine.config import Config
from mmengine.dataset import InfiniteSampler

from tests.places import CONFIGS
from tokenlabel.engine.config.run_config import load_config
from tokenlabel.engine.config.substitution import substitute


def test_types_of_mmengine_become_ours_and_adam_is_fused():
    config = Config(
        dict(
            optim_wrapper=dict(type='AmpOptimWrapper', optimizer=dict(type='AdamW', lr=1e-3)),
            train_dataloader=dict(sampler=dict(type=InfiniteSampler, shuffle=False)),
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=5), timer=dict(type='IterTimerHook')),
            custom_hooks=[dict(type='CheckpointHook', interval=7)],
        )
    )
    assert sorted(substitute(config)) == [
        'EndlessSampler for InfiniteSampler',
        'ResumableCheckpointHook for CheckpointHook',
        'SkippingAmpOptimWrapper for AmpOptimWrapper',
    ]
    assert config.optim_wrapper == dict(
        type='SkippingAmpOptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, fused=True)
    )
    assert config.train_dataloader.sampler == dict(type='EndlessSampler', shuffle=False)
    assert config.default_hooks.checkpoint == dict(type='ResumableCheckpointHook', interval=5)
    assert config.default_hooks.timer.type == 'IterTimerHook'
    assert config.custom_hooks == [dict(type='ResumableCheckpointHook', interval=7)]


@pytest.mark.parametrize(
    ('optimizer', 'fused'),
    [(dict(type='Adam'), True), (dict(type='AdamW', fused=False), False), (dict(type='SGD'), None)],
)
def test_an_optimizer_says_itself_whether_it_is_fused(optimizer, fused):
    config = Config(dict(optim_wrapper=dict(optimizer=optimizer)))
    substitute(config)
    assert config.optim_wrapper.type == 'SkippingOptimWrapper'
    assert config.optim_wrapper.optimizer.get('fused') == fused


@pytest.mark.parametrize('path', sorted(CONFIGS.rglob('*.py')), ids=lambda path: path.relative_to(CONFIGS).as_posix())
def test_shipped_configs_name_what_runs(path):
    config = load_config(path)
    before = config.to_dict()
    assert substitute(config) == []
    assert config.to_dict() == before
