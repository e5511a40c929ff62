"""Fits learning-rate schedules to the length of training, `train_cfg.max_epochs` or `train_cfg.max_iters`.

A schedule without `end` lasts until the cool-down begins; during the cool-down the learning rate is constant. The
schedule before it is the warm-up, in epochs or iterations. The warm-up takes at most a fifth of the training, and the
cool-down at most a tenth.
"""

import copy
import math
from collections.abc import Mapping

WARMUP_SHARE, COOLDOWN_SHARE = 5, 10  # at most a fifth and a tenth of the training


def with_ends(schedulers: object, train_cfg: Mapping | None) -> tuple[object, list[str]]:
    """Sets the missing `end` of every schedule in a config.

    Args:
        schedulers: `param_scheduler`: a dict, a list of dicts, or a dict of either per optimizer. Built schedulers are
            returned unchanged.
        train_cfg: `train_cfg` of the config: `max_epochs` with `cooldown_epochs`, and `max_iters`, if known.

    Returns:
        The schedules, and notes for the user: a shortened warm-up, or an `end` after the end of training.
    """
    if isinstance(schedulers, Mapping) and 'type' not in schedulers:
        found = {name: with_ends(one, train_cfg) for name, one in schedulers.items()}
        return {name: one for name, (one, _) in found.items()}, [note for _, notes in found.values() for note in notes]
    configs = schedulers if isinstance(schedulers, list | tuple) else [schedulers]
    if not all(isinstance(config, Mapping) for config in configs):
        return schedulers, []
    notes = []
    configs = copy.deepcopy(list(configs))
    for by_epoch, unit in ((True, 'epochs'), (False, 'iterations')):
        same_unit = [config for config in configs if config.get('by_epoch', True) == by_epoch]
        if length := _length(train_cfg or {}, by_epoch):
            notes += _set_ends(same_unit, length, _cooldown(train_cfg, by_epoch, length), unit)
    return configs if isinstance(schedulers, list | tuple) else configs[0], notes


def _length(train_cfg: Mapping, by_epoch: bool) -> int:
    """Length of training in epochs or iterations; 0 if the config gives it in the other unit."""
    length = train_cfg.get('max_epochs' if by_epoch else 'max_iters') or 0
    return length if isinstance(length, int) else 0


def _cooldown(train_cfg: Mapping, by_epoch: bool, length: int) -> int:
    return min(train_cfg.get('cooldown_epochs') or 0, length // COOLDOWN_SHARE) if by_epoch else 0


def _set_ends(schedulers: list[dict], length: int, cooldown: int, unit: str) -> list[str]:
    """Sets the ends of schedules that count in the same unit, in place."""
    notes = []
    for last in [one for one in schedulers if 'end' not in one]:
        warmup = last.get('begin', 0)
        before = [one for one in schedulers if 0 < one.get('end', 0) == warmup]
        longest = max(length // WARMUP_SHARE, 1)
        if before and warmup > longest:
            last['begin'] = longest
            for one in before:
                one['end'] = longest
            notes.append(f'The warm-up of {warmup} {unit} is shortened to {longest}, as the training has {length}.')
        last['end'] = max(length - cooldown, last.get('begin', 0) + 1)  # after the end if training has one step
    return notes + [
        f'The {one["type"]} of param_scheduler ends at {one["end"]} {unit} and the training at {length}: leave out its '
        '`end`, and it follows the length.'
        for one in schedulers
        if length < one['end'] < math.inf
    ]
