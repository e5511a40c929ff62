"""Converts the weights of a model between layouts: ours, timm's, or bare safetensors.

| layout | contents of a classifier's file |
|---|---|
| ours | `state_dict` with the prefix `model.`; architecture, classes and scoring rule in the entry `tokenlabel` |
| timm | bare state dict with timm's names: all of LV-ViT, or the backbone of a `TokenLabelModel` |
| safetensors | bare state dict with the model's own names; metadata in the file's header |

The weights never change, except for a position embedding that is resampled to another grid. For segmentation models see
`mmseg_ext.checkpoints.segmentation_weights`.
"""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from tokenlabel.checkpoints.published_sizes import PUBLISHED_SIZES
from tokenlabel.checkpoints.reading import HEADER
from tokenlabel.checkpoints.weights import AVERAGED, is_wrapped, load_weights, read_checkpoint, state_dict_of
from tokenlabel.errors import UserError
from tokenlabel.files.writing import write_atomically

RAW = frozenset({'state_dict', 'model'})
LAYOUTS = ('ours', 'timm', 'safetensors')


@dataclass
class Weights:
    """Weights under the model's own names, without prefixes of files or wrappers.

    Attributes:
        source: their file.
        state: tensors by name.
        noted: metadata from our pretraining, as far as known: `architecture`, `num_classes`, `class_names`,
            `token_score_weight`.
        dataset_meta: class names and colours of a segmentation model, as far as known.
        steps: conversion steps so far, one line each.
    """

    source: Path
    state: dict[str, Tensor]
    noted: dict = field(default_factory=dict)
    dataset_meta: dict = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)

    @property
    def is_segmentation(self) -> bool:
        """Whether they belong to a segmentation model."""
        return any(name.startswith('decode_head.') for name in self.state)

    @property
    def is_lvvit(self) -> bool:
        """Whether they belong to an LV-ViT classifier."""
        return {'patch_embed.conv3.weight', 'patch_embed.proj.weight', 'cls_token'} <= self.state.keys()


def read_weights(path: str | Path, averaged: bool = True) -> Weights:
    """The weights of a checkpoint in any layout.

    Args:
        path: the file.
        averaged: if the file has EMA and raw weights, take the EMA weights; False takes the raw ones.

    Raises:
        UserError: as `read_checkpoint`; the file holds no weights.
    """
    checkpoint = read_checkpoint(path)
    has_averaged, has_raw = not AVERAGED.isdisjoint(checkpoint), not RAW.isdisjoint(checkpoint)
    stored = state_dict_of(checkpoint, ema=averaged and has_averaged, source=path, prefixes=())
    weights = Weights(Path(path), state_dict_of(checkpoint, ema=averaged and has_averaged, source=path))
    weights.noted = _plain(checkpoint.get('tokenlabel', {}))
    weights.dataset_meta = dataset_meta_of(checkpoint)
    if has_averaged and not has_raw:
        weights.steps.append('took the EMA weights, the only ones there are')
    elif has_averaged:
        kind, other = ('EMA', 'raw') if averaged else ('raw', 'EMA')
        weights.steps.append(f'took the {kind} weights, left the {other} ones')
    known = {'tokenlabel', 'meta', *AVERAGED, *RAW}
    left = [] if isinstance(next(iter(checkpoint.values())), Tensor) else sorted(set(map(str, checkpoint)) - known)
    if left:
        weights.steps.append(f'left out what is not a weight: {", ".join(left)}')
    note_renaming(weights, stored)
    return weights


def dataset_meta_of(checkpoint: Mapping) -> dict:
    """Class names and colours from MMSegmentation's `meta`, version 0.x or 1.x; only plain values.

    Args:
        checkpoint: Contents of a file, see `read_checkpoint`.
    """
    meta = checkpoint.get('meta', {})
    old = {key.lower(): meta[key] for key in ('CLASSES', 'PALETTE') if key in meta}
    return _plain((meta.get('dataset_meta') or {}) | old)


def classifier_in(weights: Weights, layout: str) -> dict:
    """The contents of a classifier's file in this layout; appends the steps to `weights.steps`.

    Args:
        weights: weights of LV-ViT, of a `TokenLabelModel` or of any timm model.
        layout: one of `LAYOUTS`.
    """
    return {'ours': _ours, 'timm': _timm, 'safetensors': _bare}[layout](weights)


def fit(weights: Weights, model: nn.Module, load: Callable[[nn.Module, dict], None] | None = None) -> None:
    """Checks that weights and model match exactly; resamples weights that depend on the input size.

    Args:
        weights: weights to load; resampled ones are replaced in place.
        model: model to load them into.
        load: function that loads them; by default as in `load_checkpoint`.

    Raises:
        UserError: A weight is missing, unexpected or of another shape.
    """
    if load is None:
        load_weights(model, weights.state, source=weights.source)
    else:
        load(model, weights.state)
    loaded = {name: x for name, x in model.state_dict().items() if not name.endswith('num_batches_tracked')}
    missing = sorted(loaded.keys() - weights.state.keys())
    sized = [name for name, x in loaded.items() if name not in missing and x.shape != weights.state[name].shape]
    heads = [name for name in sized if name.rpartition('.')[2] in ('weight', 'bias') and len(loaded[name].shape) < 3]
    if missing or heads:
        what = (
            f'has no {missing[0]}'
            if missing
            else f'has {heads[0]} of {weights.state[heads[0]].shape[:1].numel()} classes'
        )
        raise UserError(f'{weights.source} does not fit the config: it {what}; give the config it was trained with')
    for name in sized:
        before, after = weights.state[name].shape, loaded[name].shape
        weights.steps.append(f'resampled {name} from {list(before)} to {list(after)}')
        weights.state[name] = loaded[name].to(weights.state[name].dtype)


def save(path: str | Path, content: dict) -> int:
    """Writes a file atomically: safetensors if the path ends in `.safetensors`, else torch's format.

    Args:
        path: file to write.
        content: result of `classifier_in` or `mmseg_ext.checkpoints.segmentation_weights.segmentation_in`: weights
            under `state_dict` or bare, and metadata.

    Returns:
        Number of bytes written.
    """
    if Path(path).suffix == '.safetensors':
        bare = 'state_dict' not in content
        beside = {key: value for key, value in content.items() if key != 'state_dict' and value} if not bare else {}
        state = {name: x.contiguous().clone() for name, x in (content if bare else content['state_dict']).items()}
        header = {'format': 'pt'} | ({HEADER: json.dumps(beside)} if beside else {})
        data = safetensors.torch.save(state, header)
    else:
        buffer = io.BytesIO()
        torch.save(content, buffer)
        data = buffer.getvalue()
    write_atomically(path, data)
    return len(data)


def check_target(target: str | Path, layout: str, source: str | Path) -> None:
    """Checks the path of a conversion's target.

    Raises:
        UserError: Its suffix does not match the layout's format, or it is the source.
    """
    target = Path(target)
    is_safetensors = target.suffix == '.safetensors'
    if layout == 'safetensors' and not is_safetensors:
        raise UserError(f'{target} does not end in .safetensors, as the layout `safetensors` needs: rename it')
    if layout == 'ours' and is_safetensors:
        raise UserError(
            f'{target} ends in .safetensors, but the layout `{layout}` is written by torch.save: end it in .pth, or '
            'convert to safetensors'
        )
    if target.exists() and target.samefile(source):
        raise UserError(f'{target} is the source itself: give another target')


def note_renaming(weights: Weights, before: Mapping[str, Tensor]) -> None:
    """Adds a step about names that differ from those in `before`; both have the same order."""
    pairs = [(old, new) for old, new in zip(before, weights.state, strict=True) if old != new]
    if pairs:
        weights.steps.append(f'renamed {len(pairs)} weights ({pairs[0][0]} -> {pairs[0][1]})')


def note_dropping(weights: Weights, before: Mapping[str, Tensor], reason: str) -> None:
    """Adds a step about weights of `before` that were dropped; names must not have changed in between."""
    dropped = [name for name in before if name not in weights.state]
    if dropped:
        parts = sorted({name.partition('.')[0] for name in dropped})
        weights.steps.append(f'dropped {len(dropped)} weights, {reason}: {", ".join(parts)}')


def _ours(weights: Weights) -> dict:
    weights.noted = _known(weights)
    weights.steps.append('put model. before the names')
    return {
        'meta': {},
        'state_dict': {f'model.{name}': x for name, x in weights.state.items()},
        'tokenlabel': weights.noted,
    }


def _timm(weights: Weights) -> dict:
    before = weights.state
    if is_wrapped(before):
        weights.state = {name: x for name, x in before.items() if name.startswith('backbone.')}
        note_dropping(weights, before, "which the backbone's layout does not have")
        before = weights.state
        weights.state = {name.removeprefix('backbone.'): x for name, x in before.items()}
        note_renaming(weights, before)
    _note_scoring_rule(weights)
    return weights.state


def _bare(weights: Weights) -> dict:
    return {'state_dict': weights.state, 'tokenlabel': _known(weights)}


def _known(weights: Weights) -> dict:
    """Metadata of a classifier for our layout, from the file or inferred from the weights."""
    state = weights.state
    name = 'head.weight' if weights.is_lvvit else 'aux_head.weight'
    known = {'architecture': _published_size(state)} if weights.is_lvvit and _published_size(state) else {}
    if name in state and state[name].ndim:
        known['num_classes'] = len(state[name])
    known['token_score_weight'] = 0.5 if 'aux_head.weight' in state else 0.0
    return known | weights.noted


def _published_size(state: Mapping[str, Tensor]) -> str | None:
    """Name of the published LV-ViT with the same width and depth, or None."""
    depth = len({name.split('.')[1] for name in state if name.startswith('blocks.')})
    found = {'embed_dim': state['cls_token'].shape[-1:].numel(), 'depth': depth}
    return next((name for name, sizes in PUBLISHED_SIZES.items() if found.items() <= sizes.items()), None)


def _note_scoring_rule(weights: Weights) -> None:
    rule = weights.noted.get('token_score_weight', 0.5)
    if rule != 0.5 and weights.is_lvvit:
        weights.steps.append(f'dropped the scoring rule, which this layout does not store: token_score_weight={rule:g}')


def _plain(entries: Mapping) -> dict:
    """The non-empty entries with plain values, which every format can store."""
    return {key: value for key, value in entries.items() if value is not None and _is_plain(value)}


def _is_plain(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(x) for key, x in value.items())
    if isinstance(value, list | tuple):
        return all(_is_plain(x) for x in value)
    return isinstance(value, str | int | float | bool)
