"""Calling a function in two processes of this machine that form a group."""

import os
import socket
from collections.abc import Callable

import torch
import torch.multiprocessing
from torch import distributed

from tokenlabel.engine.distributed.idle_threads import wait_for_idle_threads


def free_port() -> str:
    """A port of this machine that nothing listens on."""
    with socket.create_server(('127.0.0.1', 0)) as server:
        return str(server.getsockname()[1])


def in_two_processes(function: Callable, *arguments) -> None:
    """Calls `function(rank, *arguments)` in both; it has to be one that another process can import.

    Raises:
        torch.multiprocessing.ProcessRaisedException: with the traceback of the process that failed.
    """
    torch.multiprocessing.spawn(_call, (free_port(), function, arguments), nprocs=2)


def _call(rank: int, port: str, function: Callable, arguments: tuple) -> None:
    torch.set_num_threads(1)
    os.environ |= {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': port, 'WORLD_SIZE': '2'}
    os.environ |= {'RANK': str(rank), 'LOCAL_RANK': str(rank)}
    distributed.init_process_group('gloo')
    wait_for_idle_threads()
    function(rank, *arguments)
    distributed.destroy_process_group()
