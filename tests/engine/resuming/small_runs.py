"""What resuming sees of a run, without data and loops: a model, its EMA weights, optimizer, schedules and log."""

from collections.abc import Mapping
from types import SimpleNamespace

import torch
from mmengine.hooks import EMAHook
from mmengine.logging import MessageHub
from mmengine.optim import LinearLR, OptimWrapper, OptimWrapperDict
from torch import nn

from tokenlabel.engine.optim.ema import SteppedEMA, SteppedEMAHook
from tokenlabel.engine.optim.optim_wrapper import SkippingOptimWrapper
from tokenlabel.engine.resuming.random_states import random_states

ADAMW = {'type': torch.optim.AdamW, 'lr': 0.1, 'fused': True}


def small_run(wrap=lambda model: model, optimizer: Mapping = ADAMW, ema: bool = True, **config) -> SimpleNamespace:
    """A run of this optimizer that has taken no step.

    Args:
        wrap: what is put around the model, such as distributed data parallel.
        optimizer: type and arguments.
        ema: with EMA weights.
        config: further entries of the config.
    """
    torch.manual_seed(0)
    model = wrap(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)))
    kind, options = optimizer['type'], {key: value for key, value in optimizer.items() if key != 'type'}
    own = getattr(model, 'module', model)
    schedule = {'type': 'LinearLR', 'start_factor': 0.5, 'end': 9, 'by_epoch': False}
    groups = [{'params': [own[0].weight, own[0].bias]}, {'params': [*own[1].parameters(), *own[2].parameters()]}]
    wrapper = SkippingOptimWrapper(kind(groups, **options))
    hooks = []
    if ema:
        hook = SteppedEMAHook()
        hook.src_model, hook.ema_model = own, SteppedEMA(own)
        hooks = [hook]
    return SimpleNamespace(
        model=model,
        optim_wrapper=wrapper,
        param_schedulers=[LinearLR(wrapper, start_factor=0.5, end=9, by_epoch=False) for _ in range(2)],
        build_optim_wrapper=lambda wrapper: wrapper,
        hooks=hooks,
        cfg={'param_scheduler': [schedule] * 2} | config,
        train_loop=SimpleNamespace(max_iters=9),
        _load_from='c.pth',
    )


def take_step(run: SimpleNamespace) -> None:
    for wrapper in wrappers_of(run):
        with wrapper.optim_context(run.model):
            loss = run.model(torch.ones(5, 4) + torch.arange(5.0)[:, None]).square().mean()
        wrapper.update_params(loss)
    for hook in run.hooks:
        hook.ema_model.update_parameters(hook.src_model)
    for scheduler in run.param_schedulers:
        scheduler.step()


def wrappers_of(run: SimpleNamespace) -> list[OptimWrapper]:
    wrapper = run.optim_wrapper
    return list(wrapper.optim_wrappers.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]


def checkpoint_of(run: SimpleNamespace) -> dict:
    """What `Runner.save_checkpoint` would write."""
    hub = MessageHub('small_run')
    hub.update_scalar('train/loss', 0.5)
    hub.update_info('best_score', 0.25)
    checkpoint = {
        'meta': {'iter': 1, 'epoch': 0, 'random_states': [random_states()]},
        'state_dict': getattr(run.model, 'module', run.model).state_dict(),
        'message_hub': hub.state_dict(),
        'optimizer': run.optim_wrapper.state_dict(),
        'param_schedulers': [scheduler.state_dict() for scheduler in run.param_schedulers],
    }
    for hook in run.hooks:
        if isinstance(hook, EMAHook):
            hook.before_save_checkpoint(run, checkpoint)
    return checkpoint
