"""Custom keys of an optimizer that match no parameter are named, when it is built and in a dry run."""

import pytest
import torch
from torch import nn

from tests.engine.test_dry_run import config_of
from tokenlabel.engine.config.custom_keys import unmatched_keys
from tokenlabel.engine.dry_run import describe


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
        self.scale = nn.Parameter(torch.zeros(1))


@pytest.mark.parametrize(
    ('keys', 'unmatched'),
    [
        (dict(backbone=dict(lr_mult=0.1)), []),
        ({'backbone.1': dict(lr_mult=0.1), '.scale': dict(lr_mult=2)}, []),
        (dict(bakbone=dict(lr_mult=0.1), head=dict(lr_mult=10)), ['bakbone', 'head']),
        (dict(pos_embed=dict(decay_mult=0.0)), []),  # of a recipe for several families
        (dict(pos_embed=dict(decay_mult=0.0, lr_mult=2)), ['pos_embed']),
        (dict(pos_embde=dict(decay_mult=0.0)), ['pos_embde']),
    ],
)
def test_keys_that_are_part_of_no_name_are_found(keys, unmatched):
    assert unmatched_keys(Network(), dict(paramwise_cfg=dict(custom_keys=keys))) == unmatched


def test_configs_without_custom_keys_are_fine():
    assert unmatched_keys(Network(), dict(optimizer=dict(type='SGD'))) == []
    assert unmatched_keys(Network(), dict(paramwise_cfg=None)) == []


def test_a_dry_run_names_them():
    options = {'optim_wrapper.paramwise_cfg.custom_keys.hed': dict(lr_mult=10)}
    options |= {'model.network.depth': 2, 'model.network.img_size': 32, 'train_dataloader.dataset.transform.size': 32}
    assert 'No parameter has hed in its name' in describe(config_of('pretrain_lvvit_s', **options), 1)


def test_a_run_warns_of_them_once(make_runner, monkeypatch):
    runner = make_runner(**{'optim_wrapper.paramwise_cfg.custom_keys.hed': dict(lr_mult=10)})
    said = []
    monkeypatch.setattr(runner.logger, 'warning', said.append)
    runner.build_optim_wrapper(runner.cfg.optim_wrapper)
    assert len([line for line in said if 'No parameter has hed in its name' in line]) == 1
