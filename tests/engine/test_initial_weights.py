"""Starting from weights of another run: at a finer grid, with other classes, and not where a run resumes."""

import copy
import logging
from pathlib import Path

import pytest
import torch

from tokenlabel.engine.runner import Runner
from tokenlabel.errors import UserError
from tokenlabel.models import load_checkpoint

LARGER = {
    'model.network.img_size': 96,
    'train_dataloader.dataset.transform.size': 96,
    'val_dataloader.dataset.transform.size': 96,
    'test_dataloader.dataset.transform.size': 96,
    'optim_wrapper.optimizer.lr': 1e-12,
    'optim_wrapper.optimizer.weight_decay': 0.0,
}


@pytest.fixture
def pretrained(make_runner) -> Runner:
    runner = make_runner(iterations=2)
    runner.train()
    return runner


def start(make_runner, pretrained: Runner, path: str | Path, **options) -> Runner:
    runner = make_runner(iterations=1, work_dir=f'{pretrained.work_dir}_next', initial_weights=str(path), **options)
    runner.train()
    return runner


def test_a_finer_grid_starts_from_the_averaged_weights_with_resampled_positions(make_runner, pretrained):
    tuned = start(make_runner, pretrained, pretrained.work_dir, **LARGER).model.model
    averaged = copy.deepcopy(tuned)
    load_checkpoint(averaged, f'{pretrained.work_dir}/iter_2.pth', ema=True)
    assert tuned.pos_embed.shape[1] == 1 + 12 * 12
    for name in ('pos_embed', 'head.weight', 'aux_head.weight', 'blocks.0.attn.qkv.weight'):
        torch.testing.assert_close(tuned.get_parameter(name), averaged.get_parameter(name), rtol=0, atol=1e-6)


def test_other_classes_keep_the_network_and_begin_both_heads_anew(make_runner, pretrained, scenes, tmp_path):
    few = tmp_path / 'few'
    for digit in range(3):
        (few / f'digit_{digit}').parent.mkdir(exist_ok=True)
        (few / f'digit_{digit}').symlink_to(scenes / f'imagenet/train/digit_{digit}')
    options = {
        'model.network.num_classes': 3,
        'model.targets': {'type': 'ImageLabels'},
        'train_dataloader.dataset.root': str(few),
        'train_dataloader.dataset.label_store': None,
        'val_dataloader.dataset.root': str(few),
        'optim_wrapper.optimizer.lr': 1e-12,
    }
    tuned = start(make_runner, pretrained, f'{pretrained.work_dir}/iter_2.pth', **options).model.model
    assert tuned.head.weight.shape[0] == tuned.aux_head.weight.shape[0] == 3
    before = {name: value for name, value in pretrained.model.model.state_dict().items() if 'head' not in name}
    assert set(before) == {name for name in tuned.state_dict() if 'head' not in name}
    assert tuned.token_score_weight == 0, 'the token head is not trained and must not score'


def test_a_run_that_resumes_does_not_start_over(make_runner, pretrained):
    resumed = make_runner(iterations=3, resume=True, initial_weights='nowhere.pth')
    resumed.train()
    assert resumed.iter == 3


def test_the_first_start_of_a_run_that_may_resume_has_them(make_runner, pretrained, caplog):
    options = {'work_dir': f'{pretrained.work_dir}_next', 'resume': True}
    runner = make_runner(iterations=1, initial_weights=pretrained.work_dir, **options)
    runner.logger.setLevel(logging.INFO)
    runner.logger.addHandler(caplog.handler)
    runner.train()
    assert 'Training starts from the weights of' in caplog.text and 'iter_2.pth' in caplog.text


def test_weights_that_are_not_there_are_named(make_runner, tmp_path):
    for path in ('nowhere.pth', tmp_path):
        with pytest.raises(UserError, match=rf'no checkpoint at {path} to start from: .*initial_weights=PATH'):
            make_runner(initial_weights=str(path)).train()


def test_two_places_to_start_from_are_refused(make_runner):
    with pytest.raises(UserError, match=r'load_from and initial_weights \(a\.pth\) both say'):
        make_runner(load_from='b.pth', initial_weights='a.pth').train()
