"""Steps whose loss or gradient is not finite change nothing, and are found out about without a host read."""

import copy
from functools import partial

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.optim.optimizer import amp_optimizer_wrapper
from torch import nn

from tokenlabel.engine.optim.ema import SteppedEMA
from tokenlabel.engine.optim.optim_wrapper import SkippingAmpOptimWrapper, SkippingOptimWrapper, is_fused

GOOD, BAD = 1.0, float('nan')


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))

    def forward(self, images):
        return self.layers(images)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network()


def wrapper_of(network, optimizer='AdamW', **options):
    arguments = {'fused': True} if optimizer != 'SGD' else {'momentum': 0.9}
    return SkippingOptimWrapper(
        getattr(torch.optim, optimizer)(network.parameters(), lr=0.1, weight_decay=0.1, **arguments), **options
    )


def train(network, wrapper, *factors):
    for step, factor in enumerate(factors):
        images = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
        with wrapper.optim_context(network):
            loss = network(images * factor).square().mean()
        wrapper.update_params(loss)


def state_of(network, wrapper):
    """A copy of weights, running statistics and optimizer state, as a flat dict of tensors."""
    state = copy.deepcopy(network.state_dict())
    for index, values in copy.deepcopy(wrapper.optimizer.state_dict()['state']).items():
        state |= {f'{index}.{name}': value for name, value in values.items()}
    return state


def assert_same(state, other):
    torch.testing.assert_close(state, other, rtol=0, atol=0)


@pytest.mark.parametrize('optimizer', ['AdamW', 'Adam', 'SGD'])
@pytest.mark.parametrize('factor', [BAD, float('inf')], ids=['nan', 'infinite'])
def test_a_step_that_is_not_finite_changes_nothing(network, optimizer, factor):
    wrapper = wrapper_of(network, optimizer)
    train(network, wrapper, GOOD, GOOD)
    before = state_of(network, wrapper)
    train(network, wrapper, factor)
    assert not wrapper.stepped and wrapper.at_fault
    assert_same(state_of(network, wrapper), before)


@pytest.mark.parametrize('optimizer', ['AdamW', 'SGD'])
def test_a_skipped_first_step_leaves_no_trace(network, optimizer):
    other = copy.deepcopy(network)
    wrapper, undisturbed = wrapper_of(network, optimizer), wrapper_of(other, optimizer)
    train(network, wrapper, BAD)
    train(network, wrapper, GOOD, GOOD)
    train(other, undisturbed, GOOD, GOOD)
    assert_same(state_of(network, wrapper), state_of(other, undisturbed))


def test_one_bad_part_of_an_accumulated_step_skips_the_whole_step(network):
    wrapper = wrapper_of(network, accumulative_counts=2)
    train(network, wrapper, GOOD, GOOD)
    before = state_of(network, wrapper)
    train(network, wrapper, BAD)
    assert wrapper.stepped is None
    train(network, wrapper, GOOD)
    assert not wrapper.stepped
    assert_same(state_of(network, wrapper), before)


@pytest.mark.parametrize('clip', [None, {'max_norm': 0.1}, {'type': 'value', 'clip_value': 0.01}], ids=str)
def test_finite_steps_are_those_of_mmengine(network, clip):
    other = copy.deepcopy(network)
    wrapper = wrapper_of(network, clip_grad=copy.deepcopy(clip))
    plain = OptimWrapper(
        torch.optim.AdamW(other.parameters(), lr=0.1, weight_decay=0.1, fused=True), clip_grad=copy.deepcopy(clip)
    )
    train(network, wrapper, *[GOOD] * 4)
    train(other, plain, *[GOOD] * 4)
    assert_same(state_of(network, wrapper), state_of(other, plain))


def test_the_gradient_norm_is_that_before_clipping(network):
    wrapper = wrapper_of(network, clip_grad={'max_norm': 1e-3})
    network(torch.ones(5, 3)).sum().backward()
    norm = torch.cat([parameter.grad.flatten() for parameter in network.parameters()]).norm()
    wrapper.zero_grad()
    with wrapper.optim_context(network):
        loss = network(torch.ones(5, 3)).sum()
    wrapper.update_params(loss)
    torch.testing.assert_close(wrapper.grad_norm, norm)


def test_fused_adam_reads_nothing_from_the_device(network, monkeypatch):
    wrapper = wrapper_of(network)
    train(network, wrapper, GOOD)
    average = SteppedEMA(network)

    def refuse(self, *args):
        raise AssertionError('the host read the device')

    for name in ('__bool__', '__float__', 'item', 'tolist'):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    wrapper.optimizer.step = torch.no_grad()(lambda: None)  # torch's own code, which reads its CPU scalars
    wrapper.update_params(network(torch.ones(5, 3)).sum())
    average.update_parameters(network, wrapper.stepped)


def test_sgd_is_not_called_off_on_the_device(network):
    assert not is_fused(torch.optim.SGD(network.parameters(), lr=0.1, fused=True))
    assert is_fused(torch.optim.AdamW(network.parameters(), lr=0.1, fused=True))
    assert not is_fused(torch.optim.AdamW(network.parameters(), lr=0.1))


def test_a_run_that_began_without_fused_steps_goes_on_so(network):
    plain = SkippingOptimWrapper(torch.optim.AdamW(network.parameters(), lr=0.1))
    train(network, plain, GOOD)
    wrapper = wrapper_of(network)
    wrapper.load_state_dict(plain.state_dict())
    before = state_of(network, wrapper)
    train(network, wrapper, BAD)
    assert not is_fused(wrapper.optimizer)
    assert_same(state_of(network, wrapper), before)


@pytest.fixture
def amp_on_cpu(monkeypatch):
    """MMEngine's mixed precision wants a GPU; its loss scaler works without."""
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)
    monkeypatch.setattr(amp_optimizer_wrapper, 'GradScaler', partial(torch.amp.GradScaler, device='cpu'))


def scaled_wrapper_of(network, **options):
    return SkippingAmpOptimWrapper(optimizer=torch.optim.AdamW(network.parameters(), lr=0.1, fused=True), **options)


def test_bfloat16_needs_no_loss_scaler(network, amp_on_cpu):
    assert not scaled_wrapper_of(network, dtype='bfloat16').loss_scaler.is_enabled()
    assert scaled_wrapper_of(network, dtype='float16').loss_scaler.is_enabled()
    assert scaled_wrapper_of(network, dtype='bfloat16', loss_scale=8.0).loss_scaler.is_enabled()


def test_bfloat16_steps_are_skipped_too(network, amp_on_cpu):
    wrapper = scaled_wrapper_of(network, dtype='bfloat16')
    before = state_of(network, wrapper)
    wrapper.update_params(network(torch.ones(5, 3)).sum() * BAD)
    assert wrapper.at_fault
    torch.testing.assert_close(network.state_dict()['layers.0.weight'], before['layers.0.weight'])


def test_a_loss_scaler_that_looks_for_its_scale_skips_without_fault(network, amp_on_cpu):
    wrapper = scaled_wrapper_of(network, dtype='float16', loss_scale={'init_scale': 4.0})
    faults = []
    for _ in range(4):
        before = network.layers[0].weight.clone()
        wrapper.update_params(network(torch.ones(5, 3)).sum() * BAD)
        faults.append(bool(wrapper.at_fault))
        assert not wrapper.stepped and torch.equal(network.layers[0].weight, before)
    assert faults == [False, False, True, True]  # scales 4, 2, 1, 0.5


def test_a_scaled_loss_makes_the_same_step(network, amp_on_cpu):
    other = copy.deepcopy(network)
    scaled = scaled_wrapper_of(network, dtype='float16', loss_scale={'init_scale': 1024.0})
    plain = SkippingOptimWrapper(torch.optim.AdamW(other.parameters(), lr=0.1, fused=True))
    images = torch.randn(5, 3)
    scaled.update_params(network(images).square().sum())
    plain.update_params(other(images).square().sum())
    torch.testing.assert_close(scaled.grad_norm, plain.grad_norm)
    torch.testing.assert_close(network.state_dict(), other.state_dict())


def test_a_state_saved_in_another_memory_format_goes_on_as_it_would_have():
    def run(*formats):
        torch.manual_seed(0)
        layer, saved = nn.Conv2d(3, 4, 3), None
        for memory_format in formats:
            layer = layer.to(memory_format=memory_format)
            wrapper = SkippingOptimWrapper(torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True))
            if saved:
                wrapper.load_state_dict(saved)
            for step in range(2):
                images = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(step))
                wrapper.update_params(layer(images).square().mean())
            saved = copy.deepcopy(wrapper.state_dict())
        return layer.weight

    straight = run(torch.contiguous_format, torch.contiguous_format)
    torch.testing.assert_close(run(torch.contiguous_format, torch.channels_last), straight)
