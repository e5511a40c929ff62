"""Commands in the tests' own process."""

import importlib
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np
import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer


def command(name: str) -> ModuleType:
    """The module of a command."""
    return importlib.import_module(f'tokenlabel.cli.{name}')


def run_command(name: str, *arguments: object) -> int:
    """The exit status of a command."""
    return command(name).main([str(argument) for argument in arguments])


@contextmanager
def process_of_its_own() -> Iterator[None]:
    """What a command leaves behind in its process is put back: environment, random states, what MMEngine keeps."""
    instances = [kind._instance_dict for kind in (DefaultScope, MessageHub, MMLogger, Visualizer)]
    saved = dict(os.environ), random.getstate(), np.random.get_state(), torch.get_rng_state()
    kept = [dict(each) for each in instances]
    for each in instances:
        each.clear()
    try:
        yield
    finally:
        for each, before in zip(instances, kept, strict=True):
            each.clear()
            each.update(before)
        os.environ.clear()
        os.environ.update(saved[0])
        random.setstate(saved[1])
        np.random.set_state(saved[2])
        torch.set_rng_state(saved[3])
