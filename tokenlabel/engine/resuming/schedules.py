"""Recomputes learning rates and other scheduled values of a resumed run from the config and the iteration.

MMEngine's schedulers compute each value from the previous one, so copies of them are stepped from the beginning. This
gives the values of an uninterrupted run, bit for bit, at about two microseconds per step.
"""

import copy
import inspect
from types import SimpleNamespace

from mmengine.optim import _ParamScheduler

# Attributes of a scheduler with one entry per parameter group.
PER_GROUP = ('base_values', '_last_value')
# Attributes that change in schedulers that follow a metric.
EVOLVING = ('_global_step', 'last_step', '_last_value', 'best', 'num_bad_epochs', 'cooldown_counter')


def follows_a_metric(schedulers: list[_ParamScheduler]) -> bool:
    """Whether a scheduler follows a metric, so that its value cannot be computed from the iteration."""
    return any(getattr(scheduler, 'need_val_args', False) for scheduler in schedulers)


def advance(schedulers: list[_ParamScheduler], epochs: int, iterations: int, per_epoch: int) -> None:
    """Advances new schedulers and the parameter groups of their optimizer to the state of a run.

    Args:
        schedulers: newly built schedulers of one optimizer.
        epochs: number of completed epochs.
        iterations: number of completed iterations.
        per_epoch: iterations per epoch.
    """
    if not schedulers:
        return
    groups = schedulers[0].optimizer.param_groups
    kinds, group_kinds = _kinds_of_groups(schedulers, groups)
    twins = _stepped(schedulers, groups, kinds, epochs, iterations, per_epoch)
    for group, kind in zip(groups, group_kinds, strict=True):
        group.update(twins[0].optimizer.param_groups[kind])
    for scheduler, twin in zip(schedulers, twins, strict=True):
        state = {name: value for name, value in vars(twin).items() if name != 'optimizer'}
        for name in PER_GROUP:
            if name in state:
                state[name] = [state[name][kind] for kind in group_kinds]
        vars(scheduler).update(state)


def rates_at(schedulers: list[_ParamScheduler], iteration: int) -> list[float]:
    """The learning rates at an iteration, from new iteration-based schedulers, which are not changed."""
    groups = schedulers[0].optimizer.param_groups
    kinds, _ = _kinds_of_groups(schedulers, groups)
    stand_in = _stepped(schedulers, groups, kinds, 0, iteration, iteration)[0].optimizer
    return [group['lr'] for group in stand_in.param_groups]


def continue_states(schedulers: list[_ParamScheduler], states: list[dict], groups: list[dict]) -> None:
    """Restores schedulers, one of which follows a metric, from a checkpoint, with the settings of the config.

    Scheduled values of the parameter groups are restored as well, scaled by the change of their initial value.

    Args:
        schedulers: newly built schedulers of one optimizer.
        states: their states in the checkpoint.
        groups: parameter groups in the checkpoint, in the order of the optimizer's.
    """
    for scheduler, state in zip(schedulers, states, strict=False):
        settings = {name for kind in type(scheduler).__mro__ for name in inspect.signature(kind.__init__).parameters}
        is_mmengine = type(scheduler).__module__.startswith('mmengine.')
        for name, value in state.items():
            if name in EVOLVING or not (is_mmengine or name in settings):
                setattr(scheduler, name, value)
    own = schedulers[0].optimizer.param_groups
    if len(own) != len(groups):
        return
    for name in {scheduler.param_name for scheduler in schedulers}:
        for group, stored in zip(own, groups, strict=True):
            begin, stored_begin = group.get(f'initial_{name}'), stored.get(f'initial_{name}')
            value = stored.get(name, group[name])
            group[name] = value if begin == stored_begin or not stored_begin else value * (begin / stored_begin)
            if name == 'momentum' and 'betas' in group:
                group['betas'] = (group[name], group['betas'][1])


def _kinds_of_groups(schedulers: list[_ParamScheduler], groups: list[dict]) -> tuple[list[int], list[int]]:
    """One group of each kind, and the kind of each group; groups of a kind always have the same values.

    An optimizer may have a group per parameter, and each group adds time to a step.
    """
    if any(not type(scheduler).__module__.startswith('mmengine.') for scheduler in schedulers):
        return list(range(len(groups))), list(range(len(groups)))  # custom schedulers may treat groups differently
    numbers: dict[str, int] = {}
    kinds, group_kinds = [], []
    for number, group in enumerate(groups):
        key = repr(sorted(_values(group).items()))
        if key not in numbers:
            numbers[key] = len(kinds)
            kinds.append(number)
        group_kinds.append(numbers[key])
    return kinds, group_kinds


def _stepped(
    schedulers: list[_ParamScheduler],
    groups: list[dict],
    kinds: list[int],
    epochs: int,
    iterations: int,
    per_epoch: int,
) -> list[_ParamScheduler]:
    """Copies of the schedulers, stepped to the iteration on a stub optimizer with one group of each kind."""

    def step() -> None: ...

    step._with_counter = True  # marks the optimizer step as counted by MMEngine
    stand_in = SimpleNamespace(param_groups=[_values(groups[number]) for number in kinds], step=step, _global_step=0)
    twins = []
    for scheduler in schedulers:
        twin = copy.copy(scheduler)
        twin.optimizer, twin.verbose = stand_in, False
        for name in PER_GROUP:
            if hasattr(twin, name):
                setattr(twin, name, [getattr(twin, name)[number] for number in kinds])
        twins.append(twin)
    by_iteration = [twin for twin in twins if not twin.by_epoch]
    by_epoch = [twin for twin in twins if twin.by_epoch]
    done = 0
    for ends in [*(per_epoch * (epoch + 1) for epoch in range(epochs)), None]:
        until = iterations if ends is None else min(ends, iterations)
        for _ in range(done, until):
            for twin in by_iteration:
                twin.step()
        done = until
        if ends is not None:
            for twin in by_epoch:
                twin.step()
    for scheduler, twin in zip(schedulers, twins, strict=True):
        twin.verbose = scheduler.verbose
    return twins


def _values(group: dict) -> dict:
    return {name: value for name, value in group.items() if name not in ('params', 'param_names')}
