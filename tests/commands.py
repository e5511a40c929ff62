"""Commands in the tests' own process, which is afterwards as it was."""

import importlib
import multiprocessing
import os
import random
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import ModuleType

import numpy as np
import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer
from torch.backends import cudnn

from tokenlabel.engine.resuming.preemption import SIGNALS

# Of which MMEngine keeps all instances by name, and gives out the newest.
KEPT = (DefaultScope, MessageHub, MMLogger, Visualizer)


def command(name: str) -> ModuleType:
    """The module of a command."""
    return importlib.import_module(f'tokenlabel.cli.{name}')


def run_command(name: str, *arguments: object) -> int:
    """The exit status of a command."""
    with process_of_its_own():
        return command(name).main([str(argument) for argument in arguments])


@contextmanager
def process_of_its_own() -> Iterator[None]:
    """The block finds nothing of earlier runs, as a new process does, and what it leaves behind is undone.

    That is the environment, warnings, signal handlers, random states, the settings of torch and of multiprocessing, and
    MMEngine's loggers, message hubs, visualizers and default scope.
    """
    undo = undoing()
    instances = [kind._instance_dict for kind in KEPT]
    before = [dict(each) for each in instances]
    for each in instances:
        each.clear()
    try:
        with warnings.catch_warnings():
            yield
    finally:
        for handler in [handler for logger in MMLogger._instance_dict.values() for handler in logger.handlers]:
            handler.close()
        for each, earlier in zip(instances, before, strict=True):
            each.clear()
            each.update(earlier)
        for step in undo:
            step()


def undoing() -> list[Callable[[], object]]:
    """What puts the settings of the process back to what they are now."""
    return [
        partial(restore_environment, dict(os.environ)),
        partial(random.setstate, random.getstate()),
        partial(np.random.set_state, np.random.get_state()),
        partial(torch.set_rng_state, torch.get_rng_state()),
        partial(torch.set_num_threads, torch.get_num_threads()),
        partial(torch.set_deterministic_debug_mode, torch.get_deterministic_debug_mode()),
        partial(setattr, cudnn, 'deterministic', cudnn.deterministic),
        partial(setattr, cudnn, 'benchmark', cudnn.benchmark),
        partial(multiprocessing.set_start_method, multiprocessing.get_start_method(allow_none=True), force=True),
        *(partial(signal.signal, number, signal.getsignal(number)) for number in SIGNALS),
    ]


def restore_environment(variables: dict[str, str]) -> None:
    """Makes these the environment."""
    if os.environ != variables:
        os.environ.clear()
        os.environ.update(variables)
