"""Peak memory of a network for an input, counted without running it."""

import weakref
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tokenlabel.errors import UserError


def peak_bytes(model: nn.Module, run: Callable[[], object]) -> int:
    """Peak bytes of live tensors during `run`, in addition to the model's weights.

    Runs with PyTorch's fake tensors, which have shapes but no values, so nothing is computed or allocated. Workspace
    inside kernels is not counted.

    Args:
        model: the model, whose weights are not counted.
        run: runs the model on tensors that it creates itself.

    Raises:
        UserError: the model's operations depend on values, which fake tensors do not have.
    """
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    weights = [fake.from_tensor(x) for x in (*model.parameters(), *model.buffers())]
    count = LiveBytes(weights)
    try:
        with torch.no_grad(), fake, count:
            run()
    except Exception as error:
        raise UserError(
            f'the memory that {type(model).__name__} needs cannot be counted ({type(error).__name__}): give '
            'memory_limit=None, which segments every image in one piece'
        ) from error
    return count.peak


class LiveBytes(TorchDispatchMode):
    """Tracks the total size of the storages that operations return and free."""

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
