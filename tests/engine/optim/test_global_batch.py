"""The recipe's global batch on any number of processes: kept, or the learning rate follows it."""

import pytest
import torch

from tokenlabel.checkpoints.weights import read_checkpoint
from tokenlabel.engine.optim.ema import SteppedEMAHook
from tokenlabel.engine.optim.global_batch import accumulation, checkpoints_between_steps, kept_accumulation
from tokenlabel.errors import UserError

IN_EPOCHS = {'train_cfg.max_iters': 0, 'train_cfg.max_epochs': 2, 'train_cfg.val_interval': 2}


def options(keep: bool, **more) -> dict:
    """Two epochs of 40 images of the demo, 4 at a time, of a recipe for 8."""
    scale = {'auto_scale_lr': {'enable': True, 'base_batch_size': 8}, 'keep_global_batch': keep}
    return IN_EPOCHS | {'train_dataloader.batch_size': 4} | scale | more


def steps_and_rate(runner) -> tuple[int, float]:
    """Steps of the optimizer that a run takes, and the learning rate that it was given."""
    count, rates = 0, []
    build = runner.build_optim_wrapper

    def counting(config):
        wrapper = build(config)
        original = wrapper.optimizer.step

        def step(*args, **kwargs):
            nonlocal count
            count += 1
            return original(*args, **kwargs)

        wrapper.optimizer.step = step
        return wrapper

    def scale_lr(wrapper, auto_scale_lr):
        type(runner).scale_lr(runner, wrapper, auto_scale_lr)
        rates.append(wrapper.optimizer.param_groups[0]['lr'])

    runner.build_optim_wrapper, runner.scale_lr = counting, scale_lr
    runner.train()
    return count, rates[0]


def test_kept_a_step_reads_the_recipe_s_batch_at_the_recipe_s_rate(make_runner):
    runner = make_runner(iterations=0, **options(True))
    assert steps_and_rate(runner) == (10, 1e-3)
    assert runner.iter == 20


def test_not_kept_the_rate_follows_the_batch(make_runner):
    assert steps_and_rate(make_runner(iterations=0, **options(False))) == (20, 5e-4)


@pytest.mark.parametrize(('processes', 'batch_size', 'counts'), [(8, 128, 1), (1, 128, 8), (4, 64, 4), (3, 1, None)])
def test_processes_times_batch_times_accumulation_is_the_recipe_s_batch(processes, batch_size, counts):
    if counts is None:
        with pytest.raises(UserError, match=r'batch of 1024 out of 3 x 1 images: start another number'):
            accumulation(1024, processes, batch_size)
    else:
        assert accumulation(1024, processes, batch_size) == counts


def test_a_batch_that_does_not_divide_the_recipe_s_is_refused_with_one_that_does():
    with pytest.raises(UserError, match=r'out of 8 x 100 images: set train_dataloader\.batch_size=64'):
        accumulation(1024, 8, 100)
    with pytest.raises(UserError, match=r'out of 16 x 128 images: set train_dataloader\.batch_size=64'):
        accumulation(1024, 16, 128)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'auto_scale_lr': None}, 'set auto_scale_lr.base_batch_size'),
        ({'train_cfg': {'max_iters': 100}}, 'set train_cfg.max_epochs'),
        ({'optim_wrapper': {'accumulative_counts': 2}}, 'leave one of the two out'),
    ],
)
def test_what_does_not_go_with_it_is_refused(changes, message):
    config = {
        'keep_global_batch': True,
        'auto_scale_lr': {'base_batch_size': 8},
        'train_cfg': {'max_epochs': 2},
        'train_dataloader': {'batch_size': 4},
    }
    assert kept_accumulation(config, 1) == 2
    with pytest.raises(UserError, match=message):
        kept_accumulation(config | changes, 1)


def test_checkpoints_fall_between_steps():
    hooks = {
        'logger': {'type': 'LoggerHook', 'interval': 50},
        'checkpoint': {'type': 'ResumableCheckpointHook', 'interval': 5000},
    }
    changed = checkpoints_between_steps(hooks, 3)
    assert changed == hooks | {'checkpoint': {'type': 'ResumableCheckpointHook', 'interval': 5001}}
    assert hooks['checkpoint']['interval'] == 5000


def test_weights_are_averaged_once_a_step(make_runner):
    runner = make_runner(iterations=0, **options(True))
    runner.train()
    average = next(hook for hook in runner.hooks if isinstance(hook, SteppedEMAHook)).ema_model
    assert int(average.steps) == 10


def test_a_run_that_stops_between_steps_and_resumes_ends_with_the_same_weights(make_runner):
    schedule = {'param_scheduler': [{'type': 'LinearLR', 'start_factor': 0.1, 'end': 20, 'by_epoch': False}]}
    whole = make_runner(iterations=0, **options(True, **schedule))
    whole.train()
    folder = f'{whole.work_dir}_resumed'
    make_runner(iterations=0, work_dir=folder, **options(True, **schedule, **{'train_cfg.max_epochs': 1})).train()
    resumed = make_runner(iterations=0, work_dir=folder, resume=True, **options(True, **schedule))
    resumed.train()
    first, second = (read_checkpoint(f'{runner.work_dir}/iter_20.pth') for runner in (whole, resumed))
    for part in ('state_dict', 'ema_state_dict'):
        for name, value in first[part].items():
            assert torch.equal(value, second[part][name]), (part, name)
