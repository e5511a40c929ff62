"""Finds the shapes of a timm model's feature maps for an image size, without computing them.

The model runs on torch's `meta` device, where tensors have shapes but no contents.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call


class _Intermediates(nn.Module):
    """A wrapper whose `forward` returns the model's intermediate maps."""

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
        model: A timm model, which is not changed.
        indices: Indices of the maps, as in `forward_intermediates`.
        in_chans: Channels of the image.
        size: Height and width of the image, in pixels.

    Raises:
        Exception: Any exception of the model for an image of this size.
    """
    with torch.no_grad():
        return [tuple(x.shape[1:]) for x in _maps(model, indices, in_chans, size)[0]]


def unused_parameters(model: nn.Module, indices: Sequence[int], in_chans: int, size: tuple[int, int]) -> set[str]:
    """Names of the parameters on which no map depends; arguments as in `map_shapes`."""
    with torch.enable_grad():
        maps, parameters = _maps(model, indices, in_chans, size)
        gradients = torch.autograd.grad(sum(x.sum() for x in maps), list(parameters.values()), allow_unused=True)
    return {name.removeprefix('model.') for name, x in zip(parameters, gradients, strict=True) if x is None}


def _maps(
    model: nn.Module, indices: Sequence[int], in_chans: int, size: tuple[int, int]
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Maps on the meta device, and the meta parameters from which they were computed."""
    tensors = [*model.parameters(), *model.buffers()]
    # A copy that shares the weights, because some models cache values for an image size.
    probe = _Intermediates(copy.deepcopy(model, {id(x): x for x in tensors}), indices).eval()
    parameters = {name: _shape_of(x).requires_grad_() for name, x in probe.named_parameters()}
    buffers = {name: _shape_of(x) for name, x in probe.named_buffers()}
    image = torch.empty(1, in_chans, *size, device='meta')
    return functional_call(probe, parameters | buffers, image), parameters


def _shape_of(x: Tensor) -> Tensor:
    return torch.empty_like(x, device='meta')
