"""Starts from a segmentation model with other classes: loads backbone and neck, and initialises the heads anew."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log
from torch import Size, Tensor, nn

from mmseg_ext.checkpoints.first_convolution import with_other_channels
from mmseg_ext.checkpoints.segmentation_weights import in_names_of, is_segmentation, weights_of
from mmseg_ext.checkpoints.strict_loading import load_all
from mmseg_ext.checks.config_parts import model_of
from tokenlabel.checkpoints.weights import read_checkpoint
from tokenlabel.errors import UserError

HEADS = ('decode_head', 'auxiliary_head')


def load_all_but_other_heads(model: nn.Module, file: str | Path) -> None:
    """Loads a segmentation model, preferring EMA weights; heads of other classes or types keep their weights.

    A head is loaded completely or not at all. A warning names the heads that are not loaded. Position embeddings are
    resampled, and an RGB first convolution is adapted to the model's channels.

    Args:
        model: Segmentor to fill.
        file: Checkpoint of a segmentation model, ours or a released one.

    Raises:
        UserError: The file cannot be read, holds no segmentation model, or its backbone or neck does not fit.
    """
    state = in_names_of(model, weights_of(read_checkpoint(file), file), file)
    if not is_segmentation(state):
        raise UserError(
            f'initial_weights {file} is not a segmentation model: name a pretrained backbone with '
            'model.backbone.init_cfg.checkpoint.'
        )
    own = model.state_dict()
    left = []
    for head in _heads((*own, *state)):
        fresh, stored = _part(own, head), _part(state, head)
        if _shapes(fresh) != _shapes(stored):
            left.append(head)
            state = {name: x for name, x in state.items() if name not in stored} | fresh
    load_all(model, with_other_channels(state, own, file), file)
    if left:
        print_log(
            f'{file} has other classes than the model, or another head: loaded everything but {" and ".join(left)}.',
            logger='current',
            level=logging.WARNING,
        )


def start_from_one_file(config: Config) -> None:
    """Removes the pretrained weights of a config's backbone and neck if `initial_weights` contains them."""
    model, _ = model_of(config)
    for part in ('backbone', 'neck') if config.get('initial_weights') else ():
        for key in ('init_cfg', 'pretrained'):
            if (model.get(part) or {}).get(key):
                model[part][key] = None


def _part(state: Mapping[str, Tensor], head: str) -> dict[str, Tensor]:
    return {name: x for name, x in state.items() if name.startswith(f'{head}.')}


def _shapes(state: Mapping[str, Tensor]) -> dict[str, Size]:
    return {name: x.shape for name, x in state.items() if not name.endswith('num_batches_tracked')}


def _heads(names: Iterable[str]) -> list[str]:
    """Prefixes of the heads' names: `decode_head`, `auxiliary_head.1`..."""
    found = {}
    for name in names:
        parts = name.split('.')
        if parts[0] in HEADS:
            found['.'.join(parts[: 1 + parts[1].isdigit()])] = None
    return list(found)
