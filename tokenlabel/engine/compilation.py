"""The network of a training step as one compiled graph."""

import logging

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from tokenlabel.errors import UserError


def compiled_for_training(network: nn.Module, compile: bool | str) -> 'CompiledNetwork | None':
    """What runs `network` in training, or None where that is the network itself.

    Args:
        network: what is compiled, when images first come.
        compile: False for None; True for inductor where there is a GPU, and None elsewhere: on a CPU compiling takes
            a C++ compiler and often longer than it saves; or the name of a backend of torch.compile, for any device.

    Raises:
        UserError: torch knows no backend of this name.
    """
    if compile is True and not torch.cuda.is_available():
        print_log('No GPU: the network is not compiled (model.compile=inductor does so on a CPU).', 'current')
        return None
    return CompiledNetwork(network, 'inductor' if compile is True else compile) if compile else None


class CompiledNetwork:
    """Calls a network as one graph, made by torch.compile when it is first called.

    Each size of batch has a graph of its own. A network that cannot be compiled whole, or not on this machine, is
    called as it is from then on, and a log line says why. The network itself is left alone: its parameters keep their
    names, and called directly, as evaluation does, it is not compiled.

    Attributes:
        is_compiled: False once it turned out that it cannot be.
    """

    def __init__(self, network: nn.Module, backend: str) -> None:
        known = torch.compiler.list_backends(exclude_tags=())
        if backend not in known:
            raise UserError(f'model.compile is {backend!r}, no backend of torch.compile: choose of {", ".join(known)}.')
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
            print_log(f'{name} cannot be compiled ({reason}): it trains as it is.', 'current', logging.WARNING)
        self.is_compiled = False
        return self._network(images)

    def __deepcopy__(self, memo: dict) -> None:
        """Nothing: a copy of the model, such as its average, is not trained."""
