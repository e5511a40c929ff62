"""Weights for a segmentation model, from pretraining, a released classifier or a released segmentation model.

`tokenlabel.checkpoints.weights` reads the files and unifies their names; this module selects the weights of a backbone
and a neck.
"""

import logging
import re
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.error import URLError
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, get_local_rank
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import CheckpointLoader, Runner
from torch import Tensor, nn

from mmseg_ext.checkpoints.first_convolution import with_other_channels
from mmseg_ext.checkpoints.strict_loading import load_all
from tokenlabel.checkpoints.conversion import Weights, fit, note_dropping, note_renaming
from tokenlabel.checkpoints.weights import AVERAGED, load_weights, read_checkpoint, state_dict_of
from tokenlabel.engine.resuming.checkpoint_files import load_from_local
from tokenlabel.errors import UserError

# Names of a classifier's layers after its last block.
CLASSIFIER_ONLY = ('norm.', 'fc_norm.', 'pre_logits.', 'head.', 'head_dist.', 'aux_head.')
PYRAMID = 'side_layer'


def load_backbone(backbone: nn.Module, source: str | Path, ema: bool = True) -> None:
    """Loads the backbone's part of a checkpoint; the position embedding is resampled to the backbone's grid,
    and a first convolution of RGB adapted to the backbone's channels.

    A classifier's final norm and heads are ignored, and so are blocks that the backbone does not have. Any other
    difference is an error.

    Args:
        backbone: `mmseg_ext.backbones.LVViT`.
        source: Path or URL of a pretraining checkpoint, a released classifier or a segmentation model.
        ema: Prefer EMA weights if the file has them.

    Raises:
        UserError: The file is missing, cannot be read, or holds another architecture.
    """
    checkpoint = read_checkpoint(local_path(source))
    refuse_other_architecture(checkpoint, backbone.arch, 'model.backbone.arch', source)
    state = weights_of(checkpoint, source, ema)
    if is_segmentation(state):
        state = below(state, 'backbone.')
        if any(name.startswith(PYRAMID) for name in state):
            print_log(
                f'{source} also holds a token pyramid: give the neck the same init_cfg to load it',
                logger='current',
            )
            warn_of_divisor(backbone, source)
    unused = tuple(f'blocks.{i}.' for i in range(len(backbone.blocks), backbone.depth))
    kept = {name: x for name, x in state.items() if not name.startswith((*CLASSIFIER_ONLY, *unused, PYRAMID))}
    load_weights(backbone, with_other_channels(kept, backbone.state_dict(), source), source=str(source))


def load_pyramid(pyramid: nn.Module, source: str | Path, ema: bool = True) -> None:
    """Loads a token pyramid from a segmentation model, ours or released.

    Args:
        pyramid: `mmseg_ext.necks.TokenPyramid`.
        source: Path or URL of a segmentation model.
        ema: Prefer EMA weights if the file has them.

    Raises:
        UserError: The file is missing, cannot be read, or holds no pyramid of this size.
    """
    state = weights_of(read_checkpoint(local_path(source)), source, ema)
    names = [name for name in state if f'.{PYRAMID}' in f'.{name}']
    if not names:
        raise UserError(f'{source} holds no token pyramid: give the neck a segmentation model, or no init_cfg')
    load_weights(pyramid, {name[name.index(PYRAMID) :]: state[name] for name in names}, source=str(source))


def weights_of(checkpoint: Mapping, source: str | Path, ema: bool = True) -> dict[str, Tensor]:
    """Weights by name; EMA weights if `ema` is set and the checkpoint has them.

    Raises:
        UserError: as `state_dict_of`.
    """
    return state_dict_of(checkpoint, ema=ema and not AVERAGED.isdisjoint(checkpoint), source=source)


def refuse_other_architecture(checkpoint: Mapping, architecture: str | None, key: str, source: str | Path) -> None:
    """Checks that the architecture in a checkpoint of our pretraining is that of the backbone.

    Args:
        checkpoint: Contents of the file.
        architecture: timm's name of the backbone's architecture; None if it has no name.
        key: Config key of the architecture.
        source: The file, for messages.

    Raises:
        UserError: The architectures differ.
    """
    stored = checkpoint.get('tokenlabel', {}).get('architecture')
    if stored and architecture and stored != architecture:
        raise UserError(
            f'{source} holds weights of {stored} and the backbone is {architecture}: set {key} to {stored} (and the '
            f'widths of neck and heads), or give a checkpoint of {architecture}'
        )


def local_path(source: str | Path) -> Path:
    """Local path of a checkpoint; an http(s) URL is downloaded once per machine into torch's hub cache.

    Raises:
        UserError: The download fails.
    """
    address = urlparse(str(source))
    if address.scheme not in ('http', 'https'):
        return Path(source)
    name = PurePosixPath(address.path).name
    if not name or name == '..' or '\0' in name:
        raise UserError(f'{source} does not end in a file name: give the URL of a checkpoint')
    path = Path(torch.hub.get_dir(), 'checkpoints', name)
    failure = None
    if get_local_rank() == 0 and not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(str(source), path)
        except (URLError, OSError, HTTPException, ValueError) as error:  # ValueError for invalid URLs
            failure = error
    barrier()  # also after an error, so that no rank waits forever
    if failure is not None:
        raise UserError(
            f'{source} cannot be downloaded ({failure}): save it as {path}, or set '
            'model.backbone.init_cfg.checkpoint to a file you have'
        ) from failure
    return path


def pretrained_part(init_cfg: dict | list[dict] | None) -> dict | None:
    """The entry of an `init_cfg` with a checkpoint, or None."""
    entries = [init_cfg] if isinstance(init_cfg, dict) else init_cfg or []
    return next((entry for entry in entries if entry['type'] == 'Pretrained'), None)


def is_segmentation(state: Mapping[str, Tensor]) -> bool:
    """Whether these are the weights of a complete segmentation model, not of a `TokenLabelModel`."""
    return any(name.startswith('backbone.') for name in state) and 'aux_head.weight' not in state


def below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries whose names start with `prefix`, with the prefix removed."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def released_to_ours(state: Mapping[str, Tensor], pyramid: str = 'neck.') -> dict[str, Tensor]:
    """Renames the weights of a released segmentation model, whose pyramid is in the backbone and not in a neck.

    Args:
        state: Weights under released names; our own names pass unchanged.
        pyramid: Prefix of the pyramid in our segmentation model, with its final dot.
    """
    old = f'backbone.{PYRAMID}'
    return {f'{pyramid}{PYRAMID}{name[len(old) :]}' if name.startswith(old) else name: x for name, x in state.items()}


def pyramid_place(model: nn.Module) -> str | None:
    """Prefix of the model's token pyramid, such as `neck.`; None if it has no pyramid."""
    first = f'{PYRAMID}1'
    return next((name.removesuffix(first) for name, _ in model.named_modules() if name.endswith(first)), None)


def in_names_of(model: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> dict[str, Tensor]:
    """Weights of a released segmentation model under our names; other weights pass unchanged.

    Raises:
        UserError: The weights have a token pyramid and the model does not.
    """
    if not any(re.match(rf'(module\.)?backbone\.{PYRAMID}', name) for name in state):
        return dict(state)
    place = pyramid_place(model)
    if place is None:
        raise UserError(f'{source} holds a token pyramid but the model has none: use a TokenPyramid neck')
    backbone = next(part for name, part in model.named_modules() if f'.{name}'.endswith('.backbone'))
    warn_of_divisor(backbone, source)
    pyramid = re.sub(r'^(module\.)+', '', place)  # without the prefixes of model wrappers
    return released_to_ours({name.removeprefix('module.'): x for name, x in state.items()}, pyramid)


def segmentation_in(weights: Weights, layout: str) -> dict:
    """The contents of a segmentation model's file in this layout; appends the steps to `weights.steps`.

    The layout `timm` holds only the backbone, without final norm and heads.

    Args:
        weights: weights of our or a released segmentation model, under either names.
        layout: one of `tokenlabel.checkpoints.conversion.LAYOUTS`.
    """
    if layout == 'timm':
        return _backbone_for_timm(weights)
    _take_our_names(weights)
    meta = {'dataset_meta': weights.dataset_meta} if weights.dataset_meta else {}
    return {'meta': meta, 'state_dict': weights.state}


def fit_segmentation(weights: Weights, model: nn.Module) -> None:
    """Checks that weights and segmentation model match exactly; resamples weights that depend on the crop size.

    Raises:
        UserError: As `load_all`.
    """
    _take_our_names(weights)
    fit(weights, model, load=lambda model, state: load_all(model, state, weights.source))


def _take_our_names(weights: Weights) -> None:
    before = weights.state
    weights.state = released_to_ours(before)
    note_renaming(weights, before)


def _backbone_for_timm(weights: Weights) -> dict:
    """Weights of the backbone under timm's names; the backbone is timm's model or holds it as `model`."""
    before = weights.state
    inner = 'backbone.model.' if any(name.startswith('backbone.model.') for name in before) else 'backbone.'
    pyramid = f'backbone.{PYRAMID}'
    weights.state = {n: x for n, x in before.items() if n.startswith(inner) and not n.startswith(pyramid)}
    note_dropping(weights, before, 'timm has only the backbone')
    before = weights.state
    weights.state = below(before, inner)
    note_renaming(weights, before)
    weights.steps.append('the backbone has no final norm and no heads (timm: num_classes=0, final_norm=False)')
    return weights.state


def warn_of_divisor(backbone: nn.Module, source: str | Path) -> None:
    """Warns if released weights of L are loaded into a backbone with divided residual branches, as new models have."""
    if getattr(backbone, 'arch', None) != 'lvvit_l':
        return
    divisor = getattr(backbone.blocks[0].ls1, 'divisor', 1)
    if divisor != 1:
        print_log(
            f'{source} has the names of a released segmentation model, whose size L has undivided residual branches, '
            f'but this backbone divides by {divisor:g}: for released weights set model.backbone.residual_divisor=1, as '
            'in configs/released/upernet_lvvit_l.py',
            logger='current',
            level=logging.WARNING,
        )


@CheckpointLoader.register_scheme(prefixes=('http://', 'https://'), force=True)
def load_from_address(filename: str, map_location=None) -> dict:
    """MMEngine's loader for a `load_from` URL: downloads the file once, then reads it without running its code.

    Raises:
        UserError: the download fails, or as `load_from_local`.
    """
    return load_from_local(local_path(filename), map_location)


@HOOKS.register_module()
class ReleasedNamesHook(Hook):
    """Lets `load_from` and testing use released segmentation files; our own checkpoints pass unchanged."""

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Renames the pyramid of a released model to this model's prefix."""
        state = checkpoint.get('state_dict', checkpoint)
        renamed = in_names_of(runner.model, state, 'The checkpoint')
        state.clear()
        state.update(renamed)
