"""Compiles the network for training with torch.compile."""

import logging

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from tokenlabel.errors import UserError


def compiled_for_training(network: nn.Module, compile: bool | str) -> 'CompiledNetwork | None':
    """Wraps `network` for compiled training; returns None if training runs the network uncompiled.

    Args:
        network: compiled when the first batch arrives.
        compile: False returns None. True compiles with inductor on a GPU and returns None on a CPU, where compiling
            needs a C++ compiler and often takes longer than it saves. A string names a backend, for any device.

    Raises:
        UserError: torch knows no backend of this name.
    """
    if compile is True and not torch.cuda.is_available():
        print_log('No GPU: the network is not compiled (set model.compile=inductor to compile on a CPU).', 'current')
        return None
    return CompiledNetwork(network, 'inductor' if compile is True else compile) if compile else None


class CompiledNetwork:
    """Runs a network as one graph, which torch.compile builds at the first call.

    Each batch size gets its own graph. If the network cannot be compiled as a whole, or not on this machine, it runs
    uncompiled from then on, and a log line says why. The network itself is not changed: its parameters keep their
    names, and evaluation, which calls it directly, runs uncompiled.

    Attributes:
        is_compiled: False once compiling has failed.
    """

    def __init__(self, network: nn.Module, backend: str) -> None:
        backends = torch.compiler.list_backends(exclude_tags=())
        if backend not in backends:
            raise UserError(
                f'model.compile is {backend!r}, no backend of torch.compile: choose one of {", ".join(backends)}.'
            )
        self._network = network
        self._compiled = torch.compile(network, backend=backend, fullgraph=True, dynamic=False)
        self.is_compiled = True

    def __call__(self, images: Tensor):
        if not self.is_compiled:
            return self._network(images)
        try:
            return self._compiled(images)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            name = type(getattr(self._network, 'backbone', self._network)).__name__
            print_log(f'{name} cannot be compiled ({reason}): it trains uncompiled.', 'current', logging.WARNING)
        self.is_compiled = False
        return self._network(images)

    def __deepcopy__(self, memo: dict) -> None:
        """Returns None: copies of the model, such as the EMA model, are not trained."""
