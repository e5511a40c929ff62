"""What maps a model of timm makes of an image of some size, found out without computing anything.

The model runs on torch's `meta` device, where tensors have shapes and no contents.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call


class _Intermediates(nn.Module):
    """A model whose call returns its intermediate maps."""

    def __init__(self, model: nn.Module, indices: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        self.indices = list(indices)

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.model.forward_intermediates(images, indices=self.indices, intermediates_only=True)


def map_shapes(
    model: nn.Module, indices: Sequence[int], in_chans: int, size: tuple[int, int]
) -> list[tuple[int, int, int]]:
    """Channels, rows and columns of the maps of an image.

    Args:
        model: A model of timm; it is left as it is.
        indices: Which maps, as `forward_intermediates` numbers them.
        in_chans: Channels of the image.
        size: Height and width of the image, in pixels.

    Raises:
        Exception: Whatever the model raises for an image of this size.
    """
    with torch.no_grad():
        return [tuple(x.shape[1:]) for x in _maps(model, indices, in_chans, size)[0]]


def unused_parameters(model: nn.Module, indices: Sequence[int], in_chans: int, size: tuple[int, int]) -> set[str]:
    """Names of the parameters that none of the maps depends on; arguments as of `map_shapes`."""
    with torch.enable_grad():
        maps, parameters = _maps(model, indices, in_chans, size)
        gradients = torch.autograd.grad(sum(x.sum() for x in maps), list(parameters.values()), allow_unused=True)
    return {name.removeprefix('model.') for name, x in zip(parameters, gradients, strict=True) if x is None}


def _maps(
    model: nn.Module, indices: Sequence[int], in_chans: int, size: tuple[int, int]
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Maps without contents, and the stand-ins for the model's parameters that they were made with."""
    tensors = [*model.parameters(), *model.buffers()]
    # A copy, as some models keep what they computed for a size; it shares the weights.
    probe = _Intermediates(copy.deepcopy(model, {id(x): x for x in tensors}), indices).eval()
    parameters = {name: _shape_of(x).requires_grad_() for name, x in probe.named_parameters()}
    buffers = {name: _shape_of(x) for name, x in probe.named_buffers()}
    image = torch.empty(1, in_chans, *size, device='meta')
    return functional_call(probe, parameters | buffers, image), parameters


def _shape_of(x: Tensor) -> Tensor:
    return torch.empty_like(x, device='meta')
