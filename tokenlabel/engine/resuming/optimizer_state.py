"""The optimizer's state of a checkpoint under the settings of the config."""

import inspect

from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import nn


def wrappers_of(runner: Runner) -> dict[str | None, OptimWrapper]:
    """The optimizers of a run by name; None names the only one."""
    wrapper = runner.optim_wrapper
    return dict(wrapper.items()) if isinstance(wrapper, OptimWrapperDict) else {None: wrapper}


def of_optimizer(stored: dict | list, name: str | None) -> dict | list:
    """What a checkpoint holds of one of the optimizers that `wrappers_of` names."""
    return stored if name is None else stored[name]


def parameter_names(wrapper: OptimWrapper, model: nn.Module) -> list[str]:
    """Names of the parameters in the order in which the optimizer numbers them."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    parameters = [parameter for group in wrapper.optimizer.param_groups for parameter in group['params']]
    return [names.get(id(parameter), '') for parameter in parameters]


def load_optimizer_state(wrapper: OptimWrapper, stored: dict, names: list[str], stored_names: list[str] | None) -> None:
    """Loads moments, step counts and loss scale; learning rate, decay, betas and so on stay as they are configured.

    Args:
        wrapper: as it was built from the config.
        stored: the state dict of a wrapper.
        names: of its parameters, see `parameter_names`.
        stored_names: of the stored ones; None where they are not known, and then their order is taken to be the same.
    """
    own = wrapper.state_dict()
    state = stored['state']
    if stored_names is not None and stored_names != names:
        numbers = {name: number for number, name in enumerate(stored_names)}
        state = {
            number: state[numbers[name]] for number, name in enumerate(names) if name and numbers.get(name) in state
        }
    own['state'] = state
    _take_counters(wrapper, own['param_groups'], stored['param_groups'])
    scaler, stored_scaler = own.get('loss_scaler'), stored.get('loss_scaler')
    if scaler and stored_scaler and wrapper._scale_update_param is None:  # a scale that follows the gradients
        scaler |= {name: stored_scaler[name] for name in ('scale', '_growth_tracker') if name in stored_scaler}
    elif not scaler:
        own.pop('loss_scaler', None)
    wrapper.load_state_dict(own)


def _take_counters(wrapper: OptimWrapper, groups: list[dict], stored: list[dict]) -> None:
    """Takes over what some optimizers count in their parameter groups: defaults that no argument of theirs sets."""
    arguments = inspect.signature(type(wrapper.optimizer).__init__).parameters
    defaults = wrapper.optimizer.defaults
    counters = [name for name, value in defaults.items() if name not in arguments and not isinstance(value, bool)]
    if len(groups) == len(stored):
        for group, other in zip(groups, stored, strict=True):
            group.update({name: other[name] for name in counters if name in other and name in group})
