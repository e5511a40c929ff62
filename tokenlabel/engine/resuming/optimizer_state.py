"""Loads the optimizer state of a checkpoint and keeps the settings of the config."""

import inspect

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn


def wrappers_of(runner: Runner) -> dict[str | None, OptimWrapper]:
    """The optimizer wrappers of a run by name; the key is None if there is only one."""
    wrapper = runner.optim_wrapper
    if isinstance(wrapper, OptimWrapperDict):
        return dict(wrapper.items())
    return {None: wrapper} if isinstance(wrapper, OptimWrapper) else {}


def of_optimizer(stored: dict | list, name: str | None) -> dict | list:
    """The stored state of the optimizer with this name, see `wrappers_of`."""
    return stored if name is None else stored[name]


def parameter_names(wrapper: OptimWrapper, model: nn.Module) -> list[str]:
    """Names of the parameters in the optimizer's order."""
    model = model.module if is_model_wrapper(model) else model
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    parameters = [parameter for group in wrapper.optimizer.param_groups for parameter in group['params']]
    return [names.get(id(parameter), '') for parameter in parameters]


@HOOKS.register_module()
class OptimizerStateHook(Hook):
    """Reorders the optimizer state of a checkpoint to this run's order of parameters.

    The order depends on settings such as `optim_wrapper.paramwise_cfg`. States are matched by parameter name; the
    order of checkpoints without names, from earlier versions, is kept.
    """

    priority = 'HIGHEST'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        meta, stored = checkpoint.get('meta'), checkpoint.get('optimizer')
        orders = meta.get('optimizer_parameters') if isinstance(meta, dict) else None
        if not (runner._resume and isinstance(orders, list) and isinstance(stored, dict)):
            return
        for order, (name, wrapper) in zip(orders, wrappers_of(runner).items(), strict=False):
            one = stored if name is None else stored.get(name)
            names, groups = parameter_names(wrapper, runner.model), wrapper.optimizer.state_dict()['param_groups']
            if _names_states(order, one) and (order, _sizes(one['param_groups'])) != (names, _sizes(groups)):
                numbers = {parameter: number for number, parameter in enumerate(order)}
                states = {
                    number: one['state'][numbers[parameter]]
                    for number, parameter in enumerate(names)
                    if numbers.get(parameter) in one['state']
                }
                one |= {'state': states, 'param_groups': groups}


def _names_states(order: object, stored: object) -> bool:
    """Whether a checkpoint, not checked yet, names each parameter of an optimizer exactly once."""
    if not isinstance(order, list) or not all(isinstance(name, str) for name in order):
        return False
    if not isinstance(stored, dict) or not isinstance(stored.get('state'), dict):
        return False
    groups = stored.get('param_groups')
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        return False
    if not all(isinstance(group.get('params'), list) for group in groups):
        return False
    return len(order) == len(set(order)) == sum(_sizes(groups))


def _sizes(groups: list[dict]) -> list[int]:
    return [len(group['params']) for group in groups]


def load_optimizer_state(wrapper: OptimWrapper, stored: dict) -> None:
    """Loads moments, step counts and loss scale; learning rate, weight decay, betas and so on stay as configured.

    Args:
        wrapper: optimizer wrapper built from the config.
        stored: state dict of a wrapper with the same order of parameters.
    """
    own = wrapper.state_dict()
    own['state'] = stored['state']
    _take_counters(wrapper, own['param_groups'], stored['param_groups'])
    scaler, stored_scaler = own.get('loss_scaler'), stored.get('loss_scaler')
    if scaler and stored_scaler and wrapper._scale_update_param is None:  # a scale that follows the gradients
        scaler |= {name: stored_scaler[name] for name in ('scale', '_growth_tracker') if name in stored_scaler}
    elif not scaler:
        own.pop('loss_scaler', None)
    wrapper.load_state_dict(own)


def _take_counters(wrapper: OptimWrapper, groups: list[dict], stored: list[dict]) -> None:
    """Copies counters that some optimizers keep in their parameter groups: defaults without a constructor argument."""
    arguments = inspect.signature(type(wrapper.optimizer).__init__).parameters
    defaults = wrapper.optimizer.defaults
    counters = [name for name, value in defaults.items() if name not in arguments and not isinstance(value, bool)]
    if len(groups) == len(stored):
        for group, other in zip(groups, stored, strict=True):
            group.update({name: other[name] for name in counters if name in other and name in group})
