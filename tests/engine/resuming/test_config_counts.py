"""A resumed run trains as its config says, whatever the checkpoint was written with, and says what differs once."""

import json
from pathlib import Path

import pytest
import torch

from tests.engine.resuming.interruptions import RANDOM
from tests.training_processes import overridden, settings, train_in_two_processes
from tokenlabel.engine.resuming.differences import _in_settings, _settings

NO_VALIDATION = {f'val_{part}': None for part in ('dataloader', 'cfg', 'evaluator')}
NO_VALIDATION |= {'default_hooks.checkpoint.save_best': None}


def schedule(end: int) -> list[dict]:
    return [
        dict(type='LinearLR', start_factor=0.1, begin=0, end=2, by_epoch=False),
        dict(type='PolyLR', power=1.0, eta_min=0.0, begin=2, end=end, by_epoch=False),
    ]


def rates(work_dir: str | Path) -> dict[int, float]:
    """The logged learning rate of each iteration; of the latest run where there were several."""
    lines = [line for path in sorted(Path(work_dir).glob('*/vis_data/scalars.json')) for line in path.open()]
    return {line['step']: line['lr'] for line in map(json.loads, lines) if 'lr' in line}


def said(work_dir: str | Path) -> list[str]:
    text = ''.join(path.read_text() for path in sorted(Path(work_dir).glob('*/*.log')))
    return [line.split(' - ')[-1] for line in text.splitlines() if 'The config differs' in line]


@pytest.fixture
def run(make_runner, tmp_path):
    """Trains in a folder of that name."""

    def run(folder: str, iterations: int, **options):
        own = {'work_dir': str(tmp_path / folder), 'param_scheduler': schedule(iterations), 'log_level': 'WARNING'}
        runner = make_runner(iterations, **overridden(RANDOM, NO_VALIDATION | own | options))
        runner.train()
        return runner

    return run


def test_a_finished_run_with_a_longer_schedule_trains_at_the_rates_of_the_longer_one(run):
    run('one', 4)
    longer = run('one', 8, resume=True)
    whole = rates(run('whole', 8).work_dir)
    assert {step: rates(longer.work_dir)[step] for step in range(5, 9)} == {step: whole[step] for step in range(5, 9)}
    assert whole[7] > 0
    [line] = said(longer.work_dir)
    assert 'train_cfg.max_iters 4 -> 8' in line and 'param_scheduler.1.end 4 -> 8' in line
    assert longer.param_schedulers[1].state_dict()['_global_step'] == 8


def test_all_settings_of_the_optimizer_are_those_of_the_config(run):
    run('one', 4)
    changed = {
        'optim_wrapper.optimizer.lr': 1e-4,
        'optim_wrapper.optimizer.weight_decay': 0.3,
        'optim_wrapper.optimizer.betas': (0.8, 0.9),
        'optim_wrapper.paramwise_cfg.norm_decay_mult': 0.5,
        'train_dataloader.batch_size': 4,
    }
    resumed, fresh = run('one', 6, resume=True, **changed), run('fresh', 6, **changed)
    for one, other in zip(resumed.optim_wrapper.param_groups, fresh.optim_wrapper.param_groups, strict=True):
        assert {name: one[name] for name in one if name != 'params'} == {
            name: other[name] for name in other if name != 'params'
        }
    steps = {int(state['step']) for state in resumed.optim_wrapper.optimizer.state.values()}
    assert steps == {3}  # two iterations are one: the moments are those of the checkpoint
    [line] = said(resumed.work_dir)
    for name in changed:
        assert f'{name} ' in line


def test_an_unchanged_config_is_not_remarked(run):
    runner = run('one', 4)
    run('one', 4, resume=True)
    assert said(runner.work_dir) == []


def test_states_follow_their_parameters_into_another_order(run):
    """Where `paramwise_cfg` is left out, one group holds the parameters that had one each."""
    first = run('one', 4)
    names = {id(parameter): name for name, parameter in first.model.named_parameters()}
    path = Path(first.work_dir, 'iter_4.pth')
    checkpoint = torch.load(path, weights_only=False)
    checkpoint['meta']['optimizer_parameters'][0].reverse()
    states = checkpoint['optimizer']['state']
    checkpoint['optimizer']['state'] = {len(states) - 1 - number: state for number, state in states.items()}
    torch.save(checkpoint, path)
    moments = {
        names[id(parameter)]: state['exp_avg'] for parameter, state in first.optim_wrapper.optimizer.state.items()
    }
    resumed = run('one', 4, resume=True, **{'optim_wrapper.paramwise_cfg': None})
    assert len(resumed.optim_wrapper.optimizer.param_groups) == 1
    names = {id(parameter): name for name, parameter in resumed.model.named_parameters()}
    for parameter, state in resumed.optim_wrapper.optimizer.state.items():
        assert torch.equal(state['exp_avg'], moments[names[id(parameter)]])


def test_the_seed_of_the_config_counts_and_one_that_was_drawn_is_kept(run):
    drawn = run('one', 4, randomness={'seed': None})
    again = run('one', 6, resume=True, randomness={'seed': None})
    assert again.seed == drawn.seed == again.train_dataloader.sampler.seed
    other = run('one', 8, resume=True, randomness={'seed': drawn.seed + 1})
    assert other.seed == other.train_dataloader.sampler.seed == drawn.seed + 1
    assert 'seed' in said(other.work_dir)[-1]


def test_a_schedule_that_ends_at_0_before_training_does_is_remarked(run):
    runner = run('one', 6, param_scheduler=schedule(4))
    text = ''.join(path.read_text() for path in Path(runner.work_dir).glob('*/*.log'))
    assert 'The learning rate is 0 from iteration 4 to the last, 6' in text


def test_a_checkpoint_of_an_earlier_version_resumes_at_the_rates_of_the_config(run):
    path = Path(run('one', 4).work_dir, 'iter_4.pth')
    checkpoint = torch.load(path, weights_only=False)
    for name in ('facts', 'optimizer_parameters'):
        del checkpoint['meta'][name]
    torch.save(checkpoint, path)
    longer = rates(run('one', 8, resume=True).work_dir)
    assert longer[5] == rates(run('whole', 8).work_dir)[5]


def test_segmentation_with_a_longer_schedule_trains_at_the_rates_of_the_longer_one(run_segmentation):
    options = {'log_level': 'WARNING', 'default_hooks.logger.interval': 1, 'default_hooks.checkpoint.save_best': None}
    options |= {'train_cfg.val_interval': 100, 'optim_wrapper.optimizer.lr': 0.01}
    run_segmentation('one', **options, **{'train_cfg.max_iters': 4, 'param_scheduler': schedule(4)})
    one = run_segmentation('one', resume=True, **options, param_scheduler=schedule(6))
    whole = run_segmentation('whole', **options, param_scheduler=schedule(6))
    assert [rates(one)[step] for step in (5, 6)] == [rates(whole)[step] for step in (5, 6)]
    assert rates(one)[5] > 0
    [line] = said(one)
    assert 'train_cfg.max_iters 4 -> 6' in line and 'param_scheduler.1.end 4 -> 6' in line


@pytest.mark.slow
def test_two_processes_resume_at_the_rates_of_the_config(scenes, label_store, tmp_path):
    def options(folder: str, iterations: int, **more) -> dict:
        own = {'train_cfg.max_iters': iterations, 'param_scheduler': schedule(iterations), 'log_level': 'WARNING'}
        own |= {'default_hooks.logger.interval': 1, 'visualizer.vis_backends': [{'type': 'LocalVisBackend'}]}
        return settings(scenes, label_store, tmp_path / folder, **NO_VALIDATION | own | more)

    train_in_two_processes([options('one', 4), options('whole', 6), options('one', 6, resume=True)])
    assert [rates(tmp_path / 'one')[step] for step in (5, 6)] == [rates(tmp_path / 'whole')[step] for step in (5, 6)]
    assert len(said(tmp_path / 'one')) == 1


@pytest.mark.parametrize(
    'text',
    ['import os\nos.system("true")', 'a = __import__("os")', 'train_cfg = open("x")', '(' * 5000, 'a =', 5, None, '\0'],
)
def test_a_config_in_a_checkpoint_is_text(text):
    assert set(_settings(text)) <= {'train_cfg'}
    assert _settings(text).get('train_cfg', "open('x')") == "open('x')"


def test_settings_are_compared_by_name():
    before = _settings("train_cfg = dict(max_iters=4, type='Loop')\nmodel = dict(a=[1, dict(b=-2)], c=(1, 2))\nx = 1")
    now = _settings("train_cfg = dict(max_iters=8, type='Loop')\nmodel = dict(a=[1, dict(b=3)], c=[1, 2], d=None)")
    assert _in_settings('', before, now) == ['model.a.1.b -2 -> 3', 'train_cfg.max_iters 4 -> 8']


@pytest.mark.parametrize(
    ('before', 'now', 'told'),
    [
        ('a=[dict(b=1)]', 'a=[dict(b=1), dict(c=2)]', ["a.1 nothing -> {'c': 2}"]),
        ('a=[dict(b=1), dict(c=2)]', 'a=[dict(c=2)]', ["a.0 {'b': 1} -> nothing"]),
        ('a=[dict(b=1), dict(c=2)]', 'a=[dict(b=1), dict(n=0), dict(c=2)]', ["a.1 nothing -> {'n': 0}"]),
        ('a=[dict(b=1), dict(b=1)]', 'a=[dict(b=1)]', ["a.1 {'b': 1} -> nothing"]),
        ('a=[]', 'a=[dict(b=1)]', ["a.0 nothing -> {'b': 1}"]),
        ('a=None', 'a=[dict(b=1)]', ["a.0 nothing -> {'b': 1}"]),
        ('a=[1]', 'a=[1, 2]', ['a [1] -> [1, 2]']),
        ('a=0', 'a=[dict(b=1)]', ["a 0 -> [{'b': 1}]"]),
    ],
)
def test_what_a_list_gained_or_lost_is_named(monkeypatch, before, now, told):
    monkeypatch.setattr('tokenlabel.engine.resuming.differences.KNOWN_KEYS', {'a'})
    assert _in_settings('', _settings(before), _settings(now)) == told


def test_of_long_settings_the_part_that_differs_is_shown():
    names = [f'class {number}' for number in range(150)]
    [told] = _in_settings('classes', names, [*names[:100], 'cat', *names[101:]])
    before, now = told.removeprefix('classes ').split(' -> ')
    assert "'class 100'" in before and "'cat'" in now and len(told) < 150


def test_schedules_may_be_added_to_a_run_that_had_none_and_taken_away(run):
    run('one', 2, param_scheduler=None)
    added = run('one', 6, resume=True)
    whole = rates(run('whole', 6).work_dir)
    assert [rates(added.work_dir)[step] for step in (3, 4, 5, 6)] == [whole[step] for step in (3, 4, 5, 6)]
    assert 'param_scheduler.1 nothing -> {' in said(added.work_dir)[0]
    bare = run('one', 8, resume=True, param_scheduler=[])
    assert rates(bare.work_dir)[8] == bare.cfg.optim_wrapper.optimizer.lr
    assert 'param_scheduler.0 {' in said(bare.work_dir)[1] and said(bare.work_dir)[1].count('-> nothing') == 2
