"""One key is the length of a training: `train_cfg.max_epochs` or `train_cfg.max_iters`. Schedules follow it.

A schedule without `end` lasts until the training ends, less the cool-down in which the rate stays where it ended. The
schedule before it is the warm-up, given in epochs or iterations; in a short training it is a fifth of the length at
most, and the cool-down a tenth.
"""

import copy
import math
from collections.abc import Mapping

WARMUP_SHARE, COOLDOWN_SHARE = 5, 10  # of a training, at most: a fifth and a tenth


def with_ends(schedulers: object, train_cfg: Mapping | None) -> tuple[object, list[str]]:
    """The schedules of a config with all their ends.

    Args:
        schedulers: `param_scheduler`: a dict, a list of them, or such of several optimizers by name. Schedulers that
            are built already stay as they are.
        train_cfg: of the config: `max_epochs` with `cooldown_epochs`, and `max_iters`, as far as they are known.

    Returns:
        The schedules, and what a user should know: a warm-up that was shortened, an `end` beyond the training.
    """
    if isinstance(schedulers, Mapping) and 'type' not in schedulers:
        found = {name: with_ends(one, train_cfg) for name, one in schedulers.items()}
        return {name: one for name, (one, _) in found.items()}, [note for _, notes in found.values() for note in notes]
    several = schedulers if isinstance(schedulers, list | tuple) else [schedulers]
    if not all(isinstance(one, Mapping) for one in several):
        return schedulers, []
    notes = []
    several = copy.deepcopy(list(several))
    for by_epoch, unit in ((True, 'epochs'), (False, 'iterations')):
        own = [one for one in several if one.get('by_epoch', True) == by_epoch]
        if length := _length(train_cfg or {}, by_epoch):
            notes += _settle(own, length, _cooldown(train_cfg, by_epoch, length), unit)
    return several if isinstance(schedulers, list | tuple) else several[0], notes


def _length(train_cfg: Mapping, by_epoch: bool) -> int:
    """Of a training, 0 where it is not counted so."""
    length = train_cfg.get('max_epochs' if by_epoch else 'max_iters') or 0
    return length if isinstance(length, int) else 0


def _cooldown(train_cfg: Mapping, by_epoch: bool, length: int) -> int:
    return min(train_cfg.get('cooldown_epochs') or 0, length // COOLDOWN_SHARE) if by_epoch else 0


def _settle(schedulers: list[dict], length: int, cooldown: int, unit: str) -> list[str]:
    """Gives schedules of one unit their ends, in place."""
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
        last['end'] = max(length - cooldown, last.get('begin', 0) + 1)  # beyond a training of one step
    return notes + [
        f'The {one["type"]} of param_scheduler ends at {one["end"]} {unit} and the training at {length}: leave out its '
        '`end`, and it follows the length.'
        for one in schedulers
        if length < one['end'] < math.inf
    ]
