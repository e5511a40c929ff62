"""How much memory a network needs for an input, counted without running it."""

import weakref
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tokenlabel.errors import UserError


def peak_bytes(model: nn.Module, run: Callable[[], object]) -> int:
    """Bytes of tensors that would be alive at once during `run`, beyond the model's weights.

    Nothing is computed and nothing large is allocated: PyTorch's fake tensors take the place of all others, which know
    their shapes and which kernels would run. What kernels need inside themselves is not counted.

    Args:
        model: whose weights are there already.
        run: runs the model on tensors that it makes itself.

    Raises:
        UserError: what the model does depends on values, which fake tensors do not have.
    """
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    weights = [fake.from_tensor(x) for x in (*model.parameters(), *model.buffers())]
    count = LiveBytes(weights)
    try:
        with torch.no_grad(), fake, count:
            run()
    except Exception as error:
        raise UserError(
            f'how much memory {type(model).__name__} needs cannot be counted ({type(error).__name__}): give '
            'memory_limit=None, which takes every image in one piece'
        ) from error
    return count.peak


class LiveBytes(TorchDispatchMode):
    """Adds up the storages of tensors that operations return, and takes off those that are freed."""

    def __init__(self, there_before: list[Tensor]) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known = weakref.WeakSet(x.untyped_storage() for x in there_before)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if isinstance(x, Tensor):
                self._add(x.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, storage.nbytes())

    def _free(self, size: int) -> None:
        self.live -= size
