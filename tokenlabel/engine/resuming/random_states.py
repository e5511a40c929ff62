"""Restores the random states of training after a resume and after validation."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


def random_states() -> dict:
    """States of this process's global generators: `random`, NumPy, torch on the CPU and on the current GPU.

    They consist of numbers, tuples and tensors, which `torch.load(weights_only=True)` can read.
    """
    name, words, *rest = np.random.get_state()
    states = {'python': random.getstate(), 'numpy': (name, words.tolist(), *rest), 'torch': torch.get_rng_state()}
    if torch.cuda.is_available():
        states['cuda'] = torch.cuda.get_rng_state()
    return states


def set_random_states(states: dict) -> None:
    """Sets the global generators to states from `random_states`."""
    random.setstate(states['python'])
    np.random.set_state(states['numpy'])
    torch.set_rng_state(states['torch'].cpu())
    if 'cuda' in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states['cuda'].cpu())


@contextmanager
def random_numbers_used_twice() -> Iterator[None]:
    """Restores the states of the global generators after the block."""
    states = random_states()
    try:
        yield
    finally:
        set_random_states(states)


@HOOKS.register_module()
class RandomStateHook(Hook):
    """Resumes with the random numbers that the step after the checkpoint would have used.

    Each rank restores its own states, unless the seed in the config has changed. The hook also restores the states
    after validation. So the random numbers of a step do not depend on whether the run validated or resumed.
    """

    priority = 'HIGHEST'  # before any checkpoint is written, and before FirstBatchPicture

    def __init__(self) -> None:
        self._of_processes: list[dict] | None = None
        self._resumed = False

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self._resumed = runner._resume
        meta = checkpoint.get('meta', {})
        self._of_processes, self._seed = meta.get('random_states'), meta.get('seed')

    def before_train(self, runner: Runner) -> None:
        if not self._resumed or self._seed not in (None, runner._randomness_cfg.get('seed')):
            return
        if self._of_processes is None:
            runner.logger.warning('The checkpoint holds no random states: the resumed run draws other random numbers.')
        elif len(self._of_processes) == runner.world_size:  # `differences` reports another number
            set_random_states(self._of_processes[runner.rank])
        self._of_processes = None

    def before_val(self, runner: Runner) -> None:
        self._before_val = random_states()

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        set_random_states(self._before_val)
