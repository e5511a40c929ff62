"""A run meets NaN: it skips the step, counts it, and stops where it continues like that."""

import copy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper

from tokenlabel.engine.hooks.non_finite_steps import (
    RefuseNonFiniteWeights,
    StopOnNonFiniteSteps,
    identities_of,
    keys_of,
)
from tokenlabel.engine.optim.ema import SteppedEMAHook
from tokenlabel.engine.resuming.checkpoint_files import load_from_local
from tokenlabel.errors import UserError


def break_steps(runner, *steps):
    """Makes the class scores NaN in these steps of a run, counted from 1."""
    network = runner.model.model
    original = network.forward
    taken = iter(range(1, 100))

    def forward(*args, **kwargs):
        logits = original(*args, **kwargs)
        broken = network.training and next(taken) in steps
        return logits._replace(cls=logits.cls * float('nan')) if broken else logits

    network.forward = forward


class KeepStates(Hook):
    """Copies weights, optimizer state and average after every iteration."""

    priority = 'LOWEST'

    def __init__(self):
        self.states = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        average = next(hook for hook in runner.hooks if isinstance(hook, SteppedEMAHook)).ema_model
        state = [runner.model.state_dict(), runner.optim_wrapper.optimizer.state_dict()['state'], average.state_dict()]
        self.states.append(copy.deepcopy(state))


def test_a_skipped_step_leaves_weights_momentum_and_average_as_they_were(make_runner):
    runner = make_runner(iterations=3)
    break_steps(runner, 2)
    kept = KeepStates()
    runner.register_hook(kept)
    runner.train()
    first, second, third = kept.states
    torch.testing.assert_close(second, first, rtol=0, atol=0)
    assert not torch.equal(third[0]['model.head.weight'], second[0]['model.head.weight'])
    assert third[2]['steps'] == 2


def test_skipped_steps_are_counted_and_do_not_stop_the_run(make_runner):
    runner = make_runner(iterations=6, **{'custom_hooks.0.interval': 2})
    break_steps(runner, 1, 3, 4, 6)
    weights = runner.train().state_dict()
    assert runner.message_hub.get_scalar('train/skipped_steps').current() == 4
    assert all(value.isfinite().all() for value in weights.values())


def test_three_bad_steps_in_a_row_stop_the_run(make_runner):
    runner = make_runner(iterations=9, **{'default_hooks.checkpoint.interval': 2, 'custom_hooks.0.interval': 6})
    break_steps(runner, 3, 4, 5)
    with pytest.raises(UserError, match=r'3 steps in a row by iteration 6 .*are good; resume from the last'):
        runner.train()


def test_the_run_is_counted_across_looks(make_runner):
    runner = make_runner(iterations=9, **{'custom_hooks.0.interval': 2})
    break_steps(runner, 4, 5, 6)
    with pytest.raises(UserError, match='3 steps in a row by iteration 6'):
        runner.train()


def test_checkpoints_of_a_stopped_run_are_good(make_runner):
    runner = make_runner(iterations=9, **{'default_hooks.checkpoint.interval': 2, 'custom_hooks.0.interval': 100})
    break_steps(runner, 4, 5, 6, 7)
    with pytest.raises(UserError):
        runner.train()
    kept = sorted(Path(runner.work_dir).glob('*.pth'))
    assert [path.name for path in kept] == ['iter_2.pth', 'iter_4.pth']
    weights = load_from_local(str(kept[-1]))['state_dict']
    assert all(value.isfinite().all() for value in weights.values())


def test_the_samples_of_the_bad_steps_are_named(make_runner):
    runner = make_runner(iterations=9, **{'custom_hooks.0.interval': 4, 'train_dataloader.batch_size': 2})
    break_steps(runner, 2, 3, 4)
    with pytest.raises(UserError, match=r'non_finite_samples\.txt'):
        runner.train()
    lines = Path(runner.work_dir, 'non_finite_samples.txt').read_text().splitlines()
    rows = [line.split('\t') for line in lines]
    assert [(int(step), what) for step, what, _ in rows] == [
        (step, 'ok' if step == 1 else 'skipped') for step in (1, 2, 3, 4) for _ in range(2)
    ]
    root = Path(runner.train_dataloader.dataset.root)
    assert all((root / key).is_file() for _, _, key in rows)


def test_an_optim_wrapper_that_does_not_skip_is_left_alone_and_that_is_said():
    said, wrapper = [], OptimWrapper(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1))
    runner = SimpleNamespace(optim_wrapper=wrapper, logger=SimpleNamespace(warning=said.append))
    hook = StopOnNonFiniteSteps()
    runner.message_hub, runner.iter = SimpleNamespace(log_scalars={}), 0
    hook.before_train(runner)
    hook.after_train_iter(runner, 0)
    assert len(said) == 1 and said[0].startswith('OptimWrapper does not skip non-finite steps')


@pytest.mark.parametrize('part', ['state_dict', 'ema_state_dict'])
def test_weights_that_are_not_finite_are_not_saved(part):
    runner = SimpleNamespace(rank=0, iter=4, work_dir='runs/a')
    checkpoint = {'state_dict': {'a': torch.ones(2)}, 'ema_state_dict': {'a': torch.ones(2), 'steps': torch.tensor(1)}}
    RefuseNonFiniteWeights().before_save_checkpoint(runner, checkpoint)
    checkpoint[part]['a'] = torch.tensor([0.0, float('nan')])
    with pytest.raises(UserError, match=r'NaN or infinite by iteration 5 \(the first: a\), so no checkpoint'):
        RefuseNonFiniteWeights().before_save_checkpoint(runner, checkpoint)


class SpoilWeights(Hook):
    """Makes a weight infinite after a step, as a learning rate can whatever the gradient."""

    priority = 'HIGHEST'

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 2:
            runner.model.model.head.bias.data.fill_(float('inf'))


def test_a_run_that_ends_between_two_looks_with_weights_that_are_nan_saves_none(make_runner):
    runner = make_runner(iterations=3, **{'default_hooks.checkpoint.interval': 2, 'train_cfg.val_interval': 9})
    runner.register_hook(SpoilWeights())
    with pytest.raises(UserError, match=r'by iteration 3 \(the first: model\.head\.bias\), so no checkpoint'):
        runner.train()
    assert [path.name for path in Path(runner.work_dir).glob('*.pth*')] == ['iter_2.pth']


def test_segmentation_samples_are_told_by_their_files():
    samples = [SimpleNamespace(img_path='a.jpg'), SimpleNamespace(img_path='b.jpg')]
    assert keys_of(identities_of({'inputs': [], 'data_samples': samples}), dataset=None) == ['a.jpg', 'b.jpg']


class BreakSecondStep(Hook):
    """Makes the weight of the class loss NaN in the second step."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        runner.model.loss_function.cls_weight = float('nan') if runner.iter == 1 else 1.0


def test_a_compiled_step_is_taken_and_skipped_alike(make_runner):
    runner = make_runner(iterations=3, compile={'backend': 'eager'})
    kept = KeepStates()
    runner.register_hook(kept)
    runner.register_hook(BreakSecondStep())
    runner.train()
    first, second, third = kept.states
    torch.testing.assert_close(second, first, rtol=0, atol=0)
    assert not torch.equal(third[0]['model.head.weight'], second[0]['model.head.weight'])
