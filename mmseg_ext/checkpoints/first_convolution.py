"""Weights that were learned on RGB, for a model of other input channels."""

from collections.abc import Mapping
from pathlib import Path

from mmengine.logging import print_log
from timm.models import adapt_input_conv
from torch import Tensor

RGB = 3


def with_other_channels(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str | Path
) -> dict[str, Tensor]:
    """`state` with its first convolution at the model's input channels, as timm does it.

    The kernels of red, green and blue are summed for one channel; for more they are repeated in turn and scaled by
    3 / channels, so that an input of equal channels gives what it gave. A line of the log says so.

    Args:
        state: Weights by the model's names.
        own: Weights of the model.
        source: Where they come from, for the log.
    """
    of_rgb = {name: x for name, x in state.items() if _differs_in_input(own.get(name), x)}
    changed = {name: adapt_input_conv(own[name].shape[1], x) for name, x in of_rgb.items()}
    for name, x in changed.items():
        print_log(
            f'{source}: {name} is adapted from RGB to {x.shape[1]} channel{"s" * (x.shape[1] > 1)}.', logger='current'
        )
    return {**state, **changed}


def _differs_in_input(own: Tensor | None, stored: Tensor) -> bool:
    """Whether a convolution is that of RGB and the model's one of other channels."""
    return (
        own is not None
        and own.ndim == stored.ndim == 4
        and stored.shape[1] == RGB != own.shape[1]
        and stored.shape[:1] + stored.shape[2:] == own.shape[:1] + own.shape[2:]
    )
