"""Checks that a checkpoint holds all state needed to resume, in the shapes of this run.

Optimizers do not check: a fused step on state of another shape reads and writes out of bounds.
"""

import inspect
import random
from collections.abc import Callable, Mapping
from functools import cache, partial
from numbers import Real
from typing import NoReturn

import numpy as np
import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.logging import HistoryBuffer
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.optim import Optimizer

from tokenlabel.checkpoints.contents import is_finite, is_number, one_line, shown
from tokenlabel.engine.resuming.differences import stored_settings
from tokenlabel.engine.resuming.optimizer_state import of_optimizer, wrappers_of
from tokenlabel.engine.resuming.schedules import EVOLVING, follows_a_metric
from tokenlabel.errors import UserError

WEIGHTS_ONLY = (
    'start from its weights instead, with initial_weights (pretraining), load_from or '
    'model.backbone.init_cfg.checkpoint (segmentation)'
)
ANOTHER_RUN = 'resume with the config that it was trained with, or start from its weights instead of resuming'
DAMAGED = 'resume from another checkpoint of the run'
SIZES = (2, 3, 5, 7, 11)  # shape of the parameter on which an optimizer is tried, all sides different
LONGEST = 10_000_000  # iterations; ImageNet in batches of 64 for 500 epochs


@HOOKS.register_module()
class RefuseIncomplete(Hook):
    """Checks a checkpoint before the run loads any of its state."""

    priority = 'HIGHEST'  # before EMAHook, which exchanges weights

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if runner._resume:
            check_complete(checkpoint, runner)


def check_complete(checkpoint: Mapping, runner: Runner) -> None:
    """Refuses a checkpoint that a run cannot resume from exactly.

    Schedules and options are compared with the config if they are resumed.

    Args:
        checkpoint: contents of the file, see `load_from_local`; its log histories are rebuilt.
        runner: a runner with model, optimizers and schedules built from the config.

    Raises:
        UserError: optimizer, schedules, iteration, log or EMA weights are missing or have another shape, type or
            number; or the random states are invalid.
    """
    source = runner._load_from or 'The checkpoint'

    def refuse(what: str, remedy: str = DAMAGED) -> NoReturn:
        raise UserError(f'{source} {one_line(what)}: {remedy}.')

    meta = checkpoint.get('meta', {})
    state = {'optimizer', 'message_hub'} - checkpoint.keys() | {'iter', 'epoch'} - meta.keys()
    written = (stored_settings(meta) or runner.cfg).get('param_scheduler')
    if runner.param_schedulers and written and 'param_schedulers' not in checkpoint:
        state.add('param_schedulers')
    if state:
        refuse(f'holds no whole state of a run to resume (without {", ".join(sorted(state))})', WEIGHTS_ONLY)
    if not isinstance(checkpoint.get('state_dict'), Mapping):
        refuse('holds no weights (state_dict)')
    _check_progress(meta, refuse)
    _check_log(checkpoint['message_hub'], refuse)
    _check_optimizers(checkpoint['optimizer'], runner, refuse)
    _check_schedulers(checkpoint.get('param_schedulers'), runner.param_schedulers, written, refuse)
    _check_random_states(meta.get('random_states'), refuse)
    _check_ema(checkpoint, runner, refuse)


Refuse = Callable[..., NoReturn]


def _check_progress(meta: Mapping, refuse: Refuse) -> None:
    for key in ('iter', 'epoch'):
        if type(meta[key]) is not int or not 0 <= meta[key] < LONGEST:
            refuse(f'was written after {key} {shown(meta[key])}, which is not a valid number')
    seed = meta.get('seed')
    if seed is not None and (type(seed) is not int or not 0 <= seed < 2**32):
        refuse(f'was written with seed {shown(seed)}, which is not a valid seed')


def _check_log(hub: object, refuse: Refuse) -> None:
    """Checks MMEngine's MessageHub and rebuilds its histories from their numbers."""
    parts = ('log_scalars', 'runtime_info', 'resumed_keys')
    if not isinstance(hub, Mapping) or not all(isinstance(hub.get(part), Mapping) for part in parts):
        refuse(f'holds no log of a run (message_hub with {", ".join(parts)})')
    if any(not isinstance(key, str) for part in parts for key in hub[part]):
        refuse('holds a log with a name that is not a string (message_hub)')
    for name, history in hub['log_scalars'].items():
        try:
            values, counts = (np.asarray(x, float) for x in (history._log_history, history._count_history))
            if values.ndim != 1 or values.shape != counts.shape or not len(values):
                raise ValueError
            hub['log_scalars'][name] = HistoryBuffer(values, counts, max(1, int(history.max_length)))
        except (AttributeError, TypeError, ValueError, OverflowError, AssertionError):
            refuse(f'holds an invalid history of {name} (message_hub)')
    for name, value in hub['runtime_info'].items():
        if name.startswith('best_score') and not isinstance(value, Real):
            refuse(f'holds a {name} that is not a number (message_hub)')
        if name == 'keep_ckpt_ids' and not (isinstance(value, list) and all(type(step) is int for step in value)):
            refuse('does not say which checkpoints it keeps (message_hub.keep_ckpt_ids)')
    for name, value in hub['resumed_keys'].items():
        if not isinstance(value, bool):
            refuse(f'does not say whether {name} is resumed (message_hub)')


def _check_optimizers(stored: object, runner: Runner, refuse: Refuse) -> None:
    wrappers = wrappers_of(runner)
    names = {id(parameter): name for name, parameter in runner.model.named_parameters()}
    unused = runner.cfg.get('find_unused_parameters', False)
    if None not in wrappers and (not isinstance(stored, Mapping) or stored.keys() != wrappers.keys()):
        refuse(f'holds other optimizers than this run, which has {", ".join(wrappers)}', ANOTHER_RUN)
    for name, wrapper in wrappers.items():
        what = 'optimizer' if name is None else f'optimizer {name}'
        _check_optimizer(of_optimizer(stored, name), wrapper, names, unused, what, refuse)


def _check_optimizer(
    stored: object, wrapper: OptimWrapper, names: Mapping[int, str], unused: bool, what: str, refuse: Refuse
) -> None:
    """Checks groups and state of one optimizer, parameter by parameter."""
    if not isinstance(stored, Mapping) or not isinstance(stored.get('state'), Mapping):
        refuse(f'holds no state of the {what}')
    groups, own = stored.get('param_groups'), wrapper.optimizer.param_groups
    if not isinstance(groups, list) or not all(
        isinstance(group, Mapping) and isinstance(group.get('params'), list) for group in groups
    ):
        refuse(f'holds no parameter groups of the {what}')
    counts = [[len(group['params']) for group in several] for several in (groups, own)]
    if counts[0] != counts[1]:
        refuse(
            f'holds {len(groups)} parameter groups of {sum(counts[0])} parameters of the {what}, and this run has '
            f'{len(own)} of {sum(counts[1])}' + ' otherwise shared out' * (sum(counts[0]) == sum(counts[1])),
            ANOTHER_RUN,
        )
    for number, (stored_group, own_group) in enumerate(zip(groups, own, strict=True)):
        _check_options(stored_group, own_group, f'group {number} of the {what}', refuse)
    if 'base_param_settings' in stored:
        _check_options(stored['base_param_settings'], wrapper.base_param_settings or {}, f'the {what}', refuse)
    _check_scaler(stored.get('loss_scaler', {}), refuse)
    numbers = [number for group in groups for number in group['params']]
    parameters = [parameter for group in own for parameter in group['params']]
    if any(type(number) is not int for number in numbers) or len(set(numbers)) < len(numbers):
        refuse(f'does not number the parameters of the {what}')
    known = set(numbers)
    if odd := [number for number in stored['state'] if number not in known]:
        refuse(f'holds a state of the {what} for parameter {shown(odd[0])}, which is in no group')
    expected = cache(partial(state_of_one, wrapper.optimizer))
    for number, parameter in zip(numbers, parameters, strict=True):
        name = names.get(id(parameter), f'parameter {number}')
        if number in stored['state']:
            _check_state(stored['state'][number], parameter, expected(parameter.ndim), f'{what} for {name}', refuse)
        elif expected(parameter.ndim) and parameter.requires_grad and not unused:
            refuse(
                f'holds no state of the {what} for {name}',
                f'{DAMAGED}, or set find_unused_parameters=True where the model has parameters without gradients',
            )


def state_of_one(optimizer: Optimizer, ndim: int) -> dict[str, object] | None:
    """State that an optimizer with these options keeps for a parameter of shape `SIZES[:ndim]` after one step.

    None for an optimizer that cannot take a plain step.
    """
    device = next(parameter.device for group in optimizer.param_groups for parameter in group['params'])
    parameter = nn.Parameter(torch.ones(SIZES[:ndim], device=device))
    parameter.grad = torch.ones_like(parameter)
    known = inspect.signature(type(optimizer)).parameters
    try:
        twin = type(optimizer)([parameter], **{key: x for key, x in optimizer.defaults.items() if key in known})
        twin.step()
    except Exception:  # a user's optimizer may raise anything
        return None
    return dict(twin.state[parameter])


def _check_state(
    state: object, parameter: Tensor, expected: Mapping[str, object] | None, what: str, refuse: Refuse
) -> None:
    if not isinstance(state, Mapping) or any(not isinstance(key, str) for key in state):
        refuse(f'holds no state of the {what}')
    expected = expected or {}
    for key in expected.keys() - state.keys():
        refuse(f'holds no {key} of the {what}')
    for key, value in state.items():
        model = expected.get(key)
        if isinstance(model, Tensor) and model.ndim == 0 and is_number(value):  # of torch before 1.12
            value = torch.tensor(float(value), dtype=model.dtype)
        if not isinstance(value, Tensor) and not (model is value is None or is_number(value)):
            refuse(f'holds a {type(value).__name__} as {key} of the {what}')
        if isinstance(model, Tensor) and not isinstance(value, Tensor):
            refuse(f'holds a number as {key} of the {what}')
        if not isinstance(value, Tensor):
            continue
        # the shape of other state tensors is known to the optimizer alone
        if isinstance(model, Tensor) and model.shape in ((), SIZES[: parameter.ndim]):
            right = _form(model) if model.ndim == 0 else _form(parameter)
            if _form(value) != right:
                refuse(f'holds {key} of the {what} as {_form(value)} instead of {right}', ANOTHER_RUN)
        if not is_finite(value) or (value.ndim == 0 and value < 0):
            refuse(f'holds {key} of the {what} with invalid values')
        # cloned, as scalars may share memory in the file but are updated separately
        state[key] = value.detach().clone() if value.ndim == 0 else value.detach()


def _form(tensor: Tensor) -> str:
    return f'{str(tensor.dtype).removeprefix("torch.")} {list(tensor.shape)}'


def _check_options(stored: object, own: Mapping, what: str, refuse: Refuse) -> None:
    """Checks the types of options such as the learning rate; their values come from the config."""
    if not isinstance(stored, Mapping) or any(not isinstance(key, str) for key in stored):
        refuse(f'holds no options of {what}')
    if 'lr' in own and 'lr' not in stored:
        refuse(f'holds no lr of {what}')
    for key in own.keys() - {'params'}:
        # options that a later torch version has added keep the run's value
        if not _is_alike(stored.setdefault(key, own[key]), own[key]):
            refuse(f'holds {shown(stored[key])} as {key} of {what}')


def _is_alike(stored: object, own: object) -> bool:
    """Whether a stored option has the type and length of this run's option."""
    if own is None or isinstance(own, bool):
        return stored is None or isinstance(stored, bool)
    if isinstance(own, Real):
        return is_number(stored)
    if isinstance(own, list | tuple):
        alike = isinstance(stored, list | tuple) and len(stored) == len(own)
        return alike and all(_is_alike(*pair) for pair in zip(stored, own, strict=True))
    if isinstance(own, Tensor):
        return is_number(stored) or (isinstance(stored, Tensor) and stored.shape == own.shape and is_finite(stored))
    return isinstance(stored, type(own))


def _check_scaler(scaler: object, refuse: Refuse) -> None:
    """Checks the loss scaler of mixed precision; `{}` is a disabled one."""
    right = isinstance(scaler, Mapping) and all(is_number(value) and value >= 0 for value in scaler.values())
    if not right or scaler.get('scale', 1) == 0:
        refuse('holds a loss scaler with invalid values (optimizer.loss_scaler)')


def _check_schedulers(stored: object, own: list | dict, written: object, refuse: Refuse) -> None:
    """Checks that the schedules of the checkpoint's own config are all stored; this run may have others."""
    if not own or (stored is None and not written):
        return
    if isinstance(own, dict):
        if not isinstance(stored, Mapping) or not own.keys() <= stored.keys():
            refuse('does not hold the schedules of every optimizer', ANOTHER_RUN)
        for name, schedulers in own.items():
            by_name = isinstance(written, Mapping) and name in written
            _check_schedulers(stored[name], schedulers, written[name] if by_name else written, refuse)
        return
    if not isinstance(stored, list) or not all(isinstance(state, Mapping) for state in stored):
        refuse('holds no schedules (param_schedulers)')
    num_written = len(written) if isinstance(written, list) else 1
    if len(stored) < num_written:
        refuse(f'holds {len(stored)} schedules and its run had {num_written}', ANOTHER_RUN)
    if follows_a_metric(own):  # others are computed anew
        for state, scheduler in zip(stored, own, strict=False):
            for name in EVOLVING:
                if name in state and not _are_numbers(state[name], getattr(scheduler, name, None)):
                    refuse(f'holds {shown(state[name])} as {name} of a schedule')


def _are_numbers(stored: object, own: object) -> bool:
    """Whether `stored` is a number, infinite or not, or a list of numbers as long as `own`."""
    if isinstance(own, list):
        return isinstance(stored, list) and len(stored) == len(own) and all(_are_numbers(x, 0) for x in stored)
    return isinstance(stored, Real) and not isinstance(stored, bool)


def _check_random_states(states: object, refuse: Refuse) -> None:
    """Tries the states on separate generators. A run also resumes without any, with a warning."""
    if states is None:
        return
    if not isinstance(states, list) or not states or not all(isinstance(state, Mapping) for state in states):
        refuse('holds invalid random states (meta.random_states)')
    for rank, state in enumerate(states):
        try:
            random.Random().setstate(state['python'])
            float(state['python'][2] or 0)
            np.random.RandomState().set_state(state['numpy'])
            torch.Generator().set_state(state['torch'].cpu())
            if 'cuda' in state:
                _check_cuda_state(state['cuda'])
        except Exception:  # the stored states may be any object
            refuse(f'holds invalid random states of process {rank} (meta.random_states)')


def _check_cuda_state(state: Tensor) -> None:
    if state.dtype != torch.uint8 or state.ndim != 1:
        raise ValueError
    if torch.cuda.is_available():
        torch.Generator('cuda').set_state(state.cpu())


def _check_ema(checkpoint: Mapping, runner: Runner, refuse: Refuse) -> None:
    """In MMEngine's checkpoints with `ema_state_dict`, `state_dict` holds the EMA weights."""
    has_hook, is_stored = any(isinstance(hook, EMAHook) for hook in runner.hooks), 'ema_state_dict' in checkpoint
    if has_hook and not is_stored:
        refuse('holds no EMA weights and the config has an EMAHook', ANOTHER_RUN)
    if is_stored and not has_hook:
        refuse('holds EMA weights and the config has no EMAHook', ANOTHER_RUN)
    if not has_hook:
        return
    weights, average = checkpoint['state_dict'], checkpoint['ema_state_dict']
    of_average = {name.removeprefix('module.'): x for name, x in average.items() if name.startswith('module.')}
    forms = [
        {name: _form(x) if isinstance(x, Tensor) else None for name, x in several.items()}
        for several in (weights, of_average)
    ]
    if forms[0] != forms[1]:
        refuse('holds raw and EMA weights that do not fit each other (state_dict, ema_state_dict)')
    steps = average.get('steps')
    if not isinstance(steps, Tensor) or steps.shape != () or steps.is_floating_point() or steps < 0:
        refuse('does not count the steps of its EMA weights (ema_state_dict.steps)')
