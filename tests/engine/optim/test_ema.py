"""EMA of the weights follows the steps that were taken."""

import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.model import MomentumAnnealingEMA
from mmengine.optim import OptimWrapper
from torch import nn

from tokenlabel.engine.optim.ema import SteppedEMA, SteppedEMAHook


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2).double())


def change(network):
    for value in network.state_dict().values():
        value.copy_(torch.randn(value.shape) if value.is_floating_point() else value + 1)


@pytest.mark.parametrize('update_buffers', [True, False])
def test_it_is_that_of_mmengine(network, update_buffers):
    ours = SteppedEMA(network, momentum=0.1, gamma=2, update_buffers=update_buffers)
    theirs = MomentumAnnealingEMA(network, momentum=0.1, gamma=2, update_buffers=update_buffers)
    for _ in range(30):
        change(network)
        ours.update_parameters(network)
        theirs.update_parameters(network)
    ignored = 'module.1.num_batches_tracked'  # a count of batches, which MMEngine never moves on
    states = [{k: v for k, v in average.state_dict().items() if k != ignored} for average in (ours, theirs)]
    torch.testing.assert_close(*states, rtol=1e-6, atol=1e-7)


def test_it_does_not_move_with_a_step_that_was_skipped(network):
    average = SteppedEMA(network, update_buffers=True)
    change(network)
    average.update_parameters(network)
    before = copy.deepcopy(average.state_dict())
    average.update_parameters(network, torch.tensor(False))
    torch.testing.assert_close(average.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize(('counts', 'steps'), [(1, 4), (2, 2)])
def test_under_another_optim_wrapper_each_of_its_steps_counts(network, counts, steps):
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    wrapper = OptimWrapper(optimizer, accumulative_counts=counts)
    runner = SimpleNamespace(model=network, optim_wrapper=wrapper, iter=0, epoch=0)
    hook = SteppedEMAHook(momentum=0.1)
    hook.before_run(runner)
    for runner.iter in range(4):
        wrapper.update_params(sum(parameter.sum() for parameter in network.parameters()))
        hook.after_train_iter(runner, runner.iter)
    assert int(hook.ema_model.steps) == steps
