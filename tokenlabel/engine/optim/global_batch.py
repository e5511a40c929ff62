"""The recipe's global batch on any number of processes, by accumulating gradients."""

import copy

from mmengine.config import ConfigDict
from mmengine.runner import IterBasedTrainLoop
from mmengine.runner.base_loop import BaseLoop

from tokenlabel.errors import UserError


def accumulation(recipe: int, processes: int, batch_size: int) -> int:
    """Iterations to accumulate per step, so that processes x batch size x iterations is the recipe's global batch.

    Raises:
        UserError: the recipe's global batch is not a multiple of processes x batch size.
    """
    per_iteration = processes * batch_size
    if recipe % per_iteration:
        fitting = [size for size in range(1, batch_size + 1) if recipe % (processes * size) == 0]
        hint = f'set train_dataloader.batch_size={fitting[-1]}' if fitting else 'start another number of processes'
        raise UserError(
            f'keep_global_batch cannot make the batch of {recipe} out of {processes} x {batch_size} images: {hint}, or '
            'let the learning rate follow the batch (keep_global_batch=False auto_scale_lr.enable=True).'
        )
    return recipe // per_iteration


def kept_accumulation(config: dict, processes: int) -> int | None:
    """`accumulation` of a config with `keep_global_batch=True`; None otherwise.

    The recipe's global batch is `auto_scale_lr.base_batch_size`.

    Raises:
        UserError: as `accumulation`; `base_batch_size` is not set; the length of training is not in epochs; or
            `optim_wrapper.accumulative_counts` is set as well.
    """
    if not config.get('keep_global_batch'):
        return None
    recipe = (config.get('auto_scale_lr') or {}).get('base_batch_size')
    if not recipe:
        raise UserError("keep_global_batch needs the recipe's global batch: set auto_scale_lr.base_batch_size.")
    if not (config.get('train_cfg') or {}).get('max_epochs'):
        raise UserError(
            'keep_global_batch changes the images per iteration, so the length of training must be in '
            'epochs: set train_cfg.max_epochs, or keep_global_batch=False.'
        )
    if (config.get('optim_wrapper') or {}).get('accumulative_counts', 1) != 1:
        raise UserError('keep_global_batch chooses optim_wrapper.accumulative_counts itself: leave one of the two out.')
    return accumulation(recipe, processes, config['train_dataloader']['batch_size'])


def iterations_per_step(config: dict, processes: int) -> int:
    """Iterations per optimizer step, from `keep_global_batch` or `accumulative_counts`.

    Raises:
        UserError: as `kept_accumulation`.
    """
    wrapper = config.get('optim_wrapper')
    counts = wrapper.get('accumulative_counts', 1) if isinstance(wrapper, dict) else 1
    return kept_accumulation(config, processes) or counts


def checkpoints_between_steps(hooks: dict | None, counts: int) -> dict | None:
    """Default hooks with checkpoint intervals rounded up to whole steps of `counts` iterations."""
    hooks = copy.deepcopy(hooks)
    for hook in (hooks or {}).values():
        saves = isinstance(hook, dict | ConfigDict) and hook.get('type') == 'ResumableCheckpointHook'
        if saves and hook.get('interval', -1) > 0:
            hook['interval'] += -hook['interval'] % counts
    return hooks


def validation_between_steps(loop: BaseLoop, counts: int) -> None:
    """Rounds the validation intervals of an iteration-based loop up to whole steps of `counts` iterations."""
    if isinstance(loop, IterBasedTrainLoop):
        loop.dynamic_intervals = [interval + -interval % counts for interval in loop.dynamic_intervals]
        loop.val_interval = loop.dynamic_intervals[0]
