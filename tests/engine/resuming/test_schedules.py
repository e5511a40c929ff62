"""Scheduled values of a resumed run: what stepping from the beginning gives, in every bit."""

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

from tokenlabel.engine.resuming.schedules import advance, continue_states, follows_a_metric, rates_at

WARMUP = dict(type='LinearLR', start_factor=1e-3, begin=0, end=5, by_epoch=False)
SCHEDULES = {
    'none': [],
    'linear, poly': [WARMUP, dict(type='PolyLR', power=0.9, eta_min=0.0, begin=5, end=37, by_epoch=False)],
    'linear, cosine': [WARMUP, dict(type='CosineAnnealingLR', eta_min=1e-5, begin=5, end=30, by_epoch=False)],
    'steps': [WARMUP, dict(type='MultiStepLR', milestones=[9, 20], gamma=0.3, by_epoch=False)],
    'exponential and decay': [
        dict(type='ExponentialLR', gamma=0.97, by_epoch=False),
        dict(type='LinearParamScheduler', param_name='weight_decay', start_factor=0.1, end=25, by_epoch=False),
    ],
    'one cycle': [dict(type='OneCycleLR', eta_max=0.1, total_steps=60, by_epoch=False)],
    'restarts': [dict(type='CosineRestartLR', periods=[10, 30], restart_weights=[1, 0.5], eta_min=0, by_epoch=False)],
    'momentum': [WARMUP, dict(type='CosineAnnealingMomentum', eta_min=0.5, T_max=40, by_epoch=False)],
    'in epochs': [WARMUP, dict(type='StepLR', step_size=2, gamma=0.5, by_epoch=True)],
}
PER_EPOCH = 4


def built(schedules: list[dict], kind: type = torch.optim.AdamW, lr: float = 0.01) -> tuple[OptimWrapper, list]:
    """An optimizer of four groups of three kinds, as `paramwise_cfg` makes them, and its fresh schedulers."""
    groups = [
        {'params': [nn.Parameter(torch.zeros(1))], 'lr': lr * rate, 'weight_decay': decay}
        for rate, decay in ((1, 0.05), (1, 0.0), (0.1, 0.05), (1, 0.0))
    ]
    options = {'momentum': 0.9} if kind is torch.optim.SGD else {}
    wrapper = OptimWrapper(kind(groups, lr=lr, **options))
    return wrapper, [PARAM_SCHEDULERS.build(dict(one), default_args={'optimizer': wrapper}) for one in schedules]


def step(schedulers: list, iterations: int) -> None:
    for iteration in range(1, iterations + 1):
        for scheduler in schedulers:
            if not scheduler.by_epoch or iteration % PER_EPOCH == 0:
                scheduler.step()


def values(wrapper: OptimWrapper, schedulers: list) -> list:
    groups = [{name: value for name, value in group.items() if name != 'params'} for group in wrapper.param_groups]
    states = [
        {name: value for name, value in scheduler.state_dict().items() if not callable(value)}
        for scheduler in schedulers
    ]
    return [groups, states]


@pytest.mark.filterwarnings('ignore:Detected call of')
@pytest.mark.parametrize('kind', [torch.optim.AdamW, torch.optim.SGD])
@pytest.mark.parametrize('name', SCHEDULES)
@pytest.mark.parametrize('iterations', [0, 7, 39])
def test_advanced_schedulers_are_where_stepping_leads(name, kind, iterations):
    stepped, advanced = built(SCHEDULES[name], kind), built(SCHEDULES[name], kind)
    step(stepped[1], iterations)
    advance(advanced[1], iterations // PER_EPOCH, iterations, PER_EPOCH)
    assert values(*stepped) == values(*advanced)
    for _, schedulers in (stepped, advanced):  # and so they remain
        step(schedulers, 3)
    assert values(*stepped) == values(*advanced)


class ThirdGroupRests(PARAM_SCHEDULERS.get('ExponentialLR')):
    """A scheduler of a user, which treats groups alike in their values in different ways."""

    def _get_value(self) -> list[float]:
        kept = [group['lr'] for group in self.optimizer.param_groups]
        return [
            old if number == 3 else new
            for number, (old, new) in enumerate(zip(kept, super()._get_value(), strict=True))
        ]


@pytest.mark.filterwarnings('ignore:Detected call of')
def test_a_scheduler_of_a_user_sees_every_group():
    stepped, advanced = built([]), built([])
    for wrapper, schedulers in (stepped, advanced):
        schedulers.append(ThirdGroupRests(wrapper, gamma=0.5, by_epoch=False))
    step(stepped[1], 3)
    advance(advanced[1], 0, 3, 3)
    assert values(*stepped) == values(*advanced)
    assert advanced[0].param_groups[3]['lr'] == 0.01 != advanced[0].param_groups[1]['lr']


def test_rates_to_come_are_read_without_moving_anything():
    wrapper, schedulers = built(SCHEDULES['linear, poly'])
    before = values(wrapper, schedulers)
    assert set(rates_at(schedulers, 37)) == {0.0}
    assert max(rates_at(schedulers, 35)) > 0
    assert values(wrapper, schedulers) == before


PLATEAU = dict(type='ReduceOnPlateauLR', monitor='loss', patience=0, factor=0.5, by_epoch=True)


def plateaued(lr: float) -> tuple[OptimWrapper, list]:
    """Halved once, by two losses that do not fall."""
    wrapper, schedulers = built([PLATEAU], lr=lr)
    for _ in range(2):
        schedulers[0].step()
        schedulers[0].step({'loss': 1.0})
    return wrapper, schedulers


@pytest.mark.parametrize('change', [1, 10])
def test_a_schedule_that_follows_a_metric_continues_from_its_state_at_the_configured_rate(change):
    wrapper, schedulers = plateaued(0.01)
    states = [scheduler.state_dict() for scheduler in schedulers]
    resumed, own = built([PLATEAU | {'patience': 3}], lr=0.01 * change)
    assert follows_a_metric(own)
    continue_states(own, states, wrapper.param_groups)
    rates = [group['lr'] for group in resumed.param_groups]
    assert rates == pytest.approx([group['lr'] * change for group in wrapper.param_groups])
    assert rates[0] == pytest.approx(0.005 * change)
    assert own[0].patience == 3 and own[0].best == 1.0 and own[0].last_step == schedulers[0].last_step
