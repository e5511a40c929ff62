"""Runs that end early, and comparing what they come to with runs that did not."""

import os
import signal
from collections.abc import Iterable
from pathlib import Path

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from tokenlabel.engine.resuming.checkpoint_files import load_from_local

# Every kind of random number in a step, on a network that is as small as can be.
RANDOM = {
    'model.network.embed_dim': 32,
    'model.network.depth': 2,
    'model.network.num_heads': 2,
    'model.network.stem_width': 8,
    'model.network.drop_path_rate': 0.3,
    'model.network.mix_token': True,
    'model.data_preprocessor.erasing': 0.5,
    'train_dataloader.dataset.transform.hflip': 0.5,
    'optim_wrapper.accumulative_counts': 2,
    'default_hooks.checkpoint.interval': 2,
    'val_dataloader.batch_size': 8,
}


class Ended(Exception):
    """Stands for a kill: nothing of the run is tidied up."""


@HOOKS.register_module()
class EndAt(Hook):
    """Ends the run before it takes the step after `iteration`, or right before the validation of that iteration.

    Args:
        iteration: iterations done.
        point: name of the hook's moment.
        kill: by SIGKILL, else by an exception.
        rank: of the process that is killed.
    """

    priority = 'HIGHEST'

    def __init__(self, iteration: int, point: str = 'before_train_iter', kill: bool = False, rank: int = 0) -> None:
        def end(runner, *args, **kwargs):
            if runner.iter != iteration or (kill and runner.rank != rank):
                return
            if kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise Ended

        setattr(self, point, end)


def differences(one: str | Path, other: str | Path) -> list[str]:
    """Tensors of two checkpoints that are not equal in every bit: weights, EMA weights, optimizer state."""
    first, second = (dict(tensors_in(load_from_local(str(path)))) for path in (one, other))
    assert first.keys() == second.keys() and len(first) > 50
    return [name for name in first if not torch.equal(first[name], second[name])]


def tensors_in(checkpoint: dict) -> Iterable[tuple[str, torch.Tensor]]:
    for part in ('state_dict', 'ema_state_dict'):
        for name, value in checkpoint.get(part, {}).items():
            yield f'{part}.{name}', value
    for number, state in checkpoint['optimizer']['state'].items():
        for name, value in state.items():
            yield f'optimizer.{number}.{name}', value
