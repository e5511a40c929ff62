"""What a dry run says agrees with what a run does."""

import copy

import pytest
import torch

from tests.engine.conftest import CONFIGS
from tokenlabel.engine.config.run_config import load_config, register_imports
from tokenlabel.engine.dry_run import (
    DRAWN_PER_EPOCH,
    TrainingLength,
    activation_bytes,
    describe,
    learning_rates,
    optimizer_state_bytes,
    sparkline,
)
from tokenlabel.engine.length import with_ends
from tokenlabel.errors import UserError


def config_of(name: str, **options):
    config = load_config(CONFIGS / f'{name}.py', options)
    register_imports(config)
    return config


def lines_of(text: str) -> dict[str, list[str]]:
    """Title -> its lines, without the title."""
    found, title = {}, ''
    for line in text.splitlines():
        title = line[:14].strip() or title
        found.setdefault(title, []).append(line[14:])
    return found


def test_without_data_the_published_recipe_is_resolved_for_imagenet():
    options = {'model.network.depth': 2, 'model.network.img_size': 32, 'train_dataloader.dataset.root': 'nowhere'}
    text = describe(config_of('pretrain_lvvit_s', **options, **{'train_dataloader.dataset.transform.size': 32}), 4)
    said = lines_of(text)
    assert '1,281,167 images are assumed' in said['data'][0] and 'nowhere is not here' in said['data'][0]
    assert said['batch'] == ['4 processes x 128 images = 512']
    assert said['length'] == ['310 epochs x 2,503 iterations = 775,930']
    assert said['learning rate'][0] == '0.0008, 0.0016 scaled with the batch (AdamW)'
    assert ' 0.0008 at 5%' in said['learning rate'][2]
    assert [part.split('rate ')[1].split(',')[:2] for part in said['parameters']] == [
        ['x1', ' decay 0'],
        ['x1', ' decay 0.05'],
    ]
    assert {line.split('  ')[-1].split(',')[0] for line in said['memory']} == {
        'weights',
        'gradients',
        'gradient buckets of DDP',
        'optimizer',
        'EMA weights',
        'activations',
        'in total per process',
    }


def test_with_data_its_images_are_counted_and_checked(scenes, label_store):
    options = {
        'train_dataloader.dataset.root': str(scenes / 'imagenet/train'),
        'train_dataloader.dataset.label_store': str(label_store),
    }
    said = lines_of(describe(config_of('demo/pretrain', **options), 1))
    assert said['data'] == [f'40 images in {scenes}/imagenet/train']
    assert said['length'] == ['800 iterations, 400.0 epochs']
    with pytest.raises(UserError, match='No label store at nowhere'):
        describe(config_of('demo/pretrain', **(options | {'train_dataloader.dataset.label_store': 'nowhere'})), 1)


def test_a_kept_batch_keeps_the_rate(scenes):
    options = {'train_dataloader.dataset.root': 'nowhere', 'keep_global_batch': True, 'model.network.depth': 1}
    said = lines_of(describe(config_of('transfer', **options, **{'train_dataloader.batch_size': 32}), 2))
    assert said['batch'] == ['2 processes x 32 images x 4 iterations a step = 256']
    assert said['learning rate'][0] == '0.0001 (AdamW)'
    assert said['starts from'] == ['work_dirs/pretrain_lvvit_s']


def test_segmentation_is_described_too():
    options = {'train_dataloader.dataset.data_root': 'nowhere'}
    said = lines_of(describe(config_of('demo/fpn', **options), 1))
    assert said['data'] == ['unknown: nowhere is not here']
    assert said['starts from'] == ['work_dirs/demo/pretrain/iter_800.pth (the backbone)']
    assert any('activations, an estimate' in line for line in said['memory'])


def test_folders_of_images_are_named_also_where_they_are_not_here(tmp_path):
    (tmp_path / 'images').mkdir()
    options = {f'{split}_dataloader.dataset.data_root': str(tmp_path) for split in ('train', 'val', 'test')}
    said = lines_of(describe(config_of('demo/fpn', **options), 1))
    assert said['data'] == [f'unknown: {tmp_path}/images/training is not here']


def test_the_rates_are_those_that_a_run_has(make_runner):
    runner = make_runner(iterations=8)
    runner.cfg.param_scheduler[0].end = runner.cfg.param_scheduler[1].begin = 3
    runner.cfg.param_scheduler[1].end = 8
    runner.param_schedulers = copy.deepcopy(runner.cfg.param_scheduler)
    rates, train_step = [], runner.model.train_step
    runner.model.train_step = lambda *args, **kwargs: (
        rates.append(runner.optim_wrapper.get_lr()['lr'][0]),
        train_step(*args, **kwargs),
    )[1]
    runner.train()
    assert learning_rates(runner.cfg.param_scheduler, runner.cfg.base_lr, TrainingLength(0, 0, 8)) == pytest.approx(
        rates
    )


def test_schedules_in_epochs_are_drawn_with_few_iterations_in_each():
    config = config_of('pretrain_lvvit_s')
    schedule, _ = with_ends(config.param_scheduler, config.train_cfg)
    rates = learning_rates(schedule, 1.6e-3, TrainingLength(310, 1252, 310 * 1252))
    assert len(rates) == 310 * DRAWN_PER_EPOCH
    assert (rates[0], max(rates), rates[-1]) == pytest.approx((1e-6, 1.6e-3, 1e-5), rel=1e-3)


@pytest.mark.parametrize(
    ('optimizer', 'per_weight'), [({'type': 'AdamW'}, 8), ({'type': 'SGD', 'momentum': 0.9}, 4), ({'type': 'SGD'}, 0)]
)
def test_the_optimizer_s_own_state_is_counted(optimizer, per_weight):
    model = torch.nn.Linear(30, 20)
    model.bias.requires_grad_(False)
    steps = 4 if per_weight == 8 else 0
    assert optimizer_state_bytes(model, optimizer | {'lr': 0.1}) == 600 * per_weight + steps


def test_activations_are_what_is_kept_for_each_image_weights_left_out():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 10), torch.nn.Sigmoid())
    # the layer keeps its input of 48 numbers, the sigmoid its output of 10
    assert activation_bytes(model, (4, 4), mixed=False) == ((48 + 10) * 4, 0)


def test_a_sparkline_rises_with_its_values():
    assert sparkline([0.0, 1, 2, 3, 4, 5, 6, 7, 8], width=9) == '▁▂▃▄▅▆▇██'
