"""Weights for a timm backbone, from pretraining, from timm or from a segmentation model."""

import inspect
import sys
from collections.abc import Mapping
from pathlib import Path

import timm
import torch
from mmengine.logging import print_log
from timm.models import model_entrypoint
from torch import Tensor, nn

from mmseg_ext.checkpoints.first_convolution import RGB, with_other_channels
from mmseg_ext.checkpoints.segmentation_weights import (
    CLASSIFIER_ONLY,
    below,
    local_path,
    refuse_other_architecture,
    weights_of,
)
from tokenlabel.checkpoints.weights import load_weights, read_checkpoint
from tokenlabel.errors import UserError


def load_timm_backbone(
    model: nn.Module, model_name: str, arguments: Mapping, source: str | Path, ema: bool = True
) -> None:
    """Loads the backbone's part of a checkpoint.

    Position embeddings and tables are resampled, and a first convolution of RGB is adapted to the backbone's channels,
    as timm does. Heads and blocks that the backbone does not have are ignored; any other difference is an error.

    Args:
        model: The backbone without unused parts.
        model_name: Its name in timm.
        arguments: Arguments of its `timm.create_model` call.
        source: Path or URL of a checkpoint of our pretraining, a file with timm's names or a segmentation model.
        ema: Prefer EMA weights if the file has them.

    Raises:
        UserError: The file is missing, cannot be read, or holds another architecture.
    """
    checkpoint = read_checkpoint(local_path(source))
    refuse_other_architecture(checkpoint, architecture_of(model_name), 'model.backbone.model_name', source)
    state = weights_of(checkpoint, source, ema)
    for place in ('backbone.', 'model.'):  # in a `TokenLabelModel` or a segmentation model; in the latter's backbone
        state = below(state, place) if any(name.startswith(place) for name in state) else state
    with torch.device('meta'):
        whole = timm.create_model(model_name, **arguments)
    state = fitted(state, whole, model_name, source)
    own = model.state_dict().keys()
    unneeded = whole.state_dict().keys() - own
    classifiers = whole.pretrained_cfg.get('classifier') or ()
    classifiers = (classifiers,) if isinstance(classifiers, str) else classifiers
    heads = (*CLASSIFIER_ONLY, *(f'{name}.' for name in classifiers))
    kept = {name: x for name, x in state.items() if name in own or not (name in unneeded or name.startswith(heads))}
    load_weights(model, with_other_channels(kept, model.state_dict(), source), source=str(source))


def load_timm_release(model: nn.Module, model_name: str, arguments: Mapping) -> None:
    """Loads timm's published weights of the architecture.

    Raises:
        UserError: There are none, or they cannot be downloaded.
    """
    try:
        donor = timm.create_model(model_name, pretrained=True, **arguments)
    except Exception as error:  # the hub, the network and timm can raise many exceptions
        raise UserError(
            f'timm has no weights for {model_name} that can be loaded here ({_first_line(error)}): set '
            'model.backbone.pretrained to a file'
        ) from error
    if (in_chans := arguments.get('in_chans', RGB)) != RGB:
        print_log(f'{model_name}: the first convolution is adapted from RGB to {in_chans} channels.', logger='current')
    own = model.state_dict().keys()
    load_weights(model, {name: x for name, x in donor.state_dict().items() if name in own}, source=model_name)


def fitted(state: Mapping[str, Tensor], model: nn.Module, model_name: str, source: str | Path) -> dict[str, Tensor]:
    """Weights under the names and at the size of `model`, by timm's filter for this architecture.

    Raises:
        UserError: The filter cannot read them.
    """
    module = sys.modules[model_entrypoint(model_name).__module__]
    adapt = getattr(module, 'checkpoint_filter_fn', None)
    if adapt is None:
        return dict(state)
    try:
        return dict(adapt(dict(state), *[model][: len(inspect.signature(adapt).parameters) - 1]))
    except Exception as error:  # filters can raise many exceptions for other names and shapes
        raise UserError(
            f'{source} does not fit {model_name} ({_first_line(error)}): give a checkpoint of this architecture'
        ) from error


def architecture_of(model_name: str) -> str:
    """timm's name without the tag of its weights."""
    return model_name.partition('.')[0]


def _first_line(error: Exception) -> str:
    return f'{type(error).__name__}: {error}'.partition('\n')[0][:200]
