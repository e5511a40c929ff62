"""Finds the weights in a checkpoint of any common layout and fits them to a model.

Layouts: a bare state dict, or one under `state_dict`, `state_dict_ema`, `model` or `model_ema`, with or without the
`module.` prefix of a wrapped model (timm, DeiT and the 2021 release write these, some with an `argparse.Namespace`
beside the weights); safetensors; and MMEngine's checkpoints, where a file with `ema_state_dict` has the EMA weights in
`state_dict` and the raw weights in `ema_state_dict`. Works for any timm model.
"""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from tokenlabel.checkpoints.contents import refuse_non_finite
from tokenlabel.checkpoints.reading import read_checkpoint
from tokenlabel.errors import UserError

_logger = logging.getLogger(__name__)

# Prefixes that wrappers and our engine add to the names.
PREFIXES = ('module.', '_orig_mod.', 'model.')
# Entries of EMA weights in files that also have raw weights.
AVERAGED = frozenset({'ema_state_dict', 'state_dict_ema', 'model_ema'})


def load_checkpoint(model: nn.Module, path: str | Path, ema: bool = False, strict: bool = True) -> None:
    """Loads the weights of a file into a model.

    Position embeddings are resampled to the model's grid. If the file has another number of classes, the model's
    class head and token head keep their weights, with a warning. A scoring rule in the file (`token_score_weight`) is
    set on the model. The model is unchanged if an error is raised. Weights of a `TokenLabelModel` also load into its
    bare backbone, without the token head. Weights of a backbone also load into a `TokenLabelModel`; if they have no
    token head, the model's token head keeps its weights, with a warning.

    Args:
        model: Any timm model, or a wrapper that holds one as `model` or `module`.
        path: File in one of the layouts above.
        ema: Load the file's EMA weights; a file without EMA weights gives a warning.
        strict: Require that all other names and shapes match; False loads what matches and warns about the rest.

    Raises:
        UserError: The file has another architecture or does not match; also as `read_checkpoint` and `state_dict_of`.
    """
    model = _innermost(model)
    checkpoint = read_checkpoint(path)
    if ema and not _weights(checkpoint, ema=True)[1]:
        _logger.warning('%s has no EMA weights: its only weights are loaded', path)
    ours = checkpoint.get('tokenlabel', {})
    stored, expected = ours.get('architecture'), _architecture(model)
    if strict and stored and expected and stored != expected:
        raise UserError(
            f'{path} holds weights of {stored} and the model is {expected}: '
            f'create the model as {stored}, or give a checkpoint of {expected}'
        )
    load_weights(model, state_dict_of(checkpoint, ema, source=path), source=path, strict=strict)
    if ours.get('token_score_weight') is not None and hasattr(model, 'token_score_weight'):
        model.token_score_weight = float(ours['token_score_weight'])


def state_dict_of(
    checkpoint: Mapping,
    ema: bool = False,
    source: str | Path = 'the checkpoint',
    prefixes: Sequence[str] = PREFIXES,
) -> dict[str, Tensor]:
    """The weights in a checkpoint by name, without the prefixes of wrappers and of our engine.

    Args:
        checkpoint: Contents of a file, see `read_checkpoint`.
        ema: If there are EMA and raw weights, take the EMA weights; a single kind is always taken.
        source: The file, for messages.
        prefixes: Prefixes to remove if all names start with them.

    Raises:
        UserError: There are no weights, or some are NaN or infinite.
    """
    weights, _ = _weights(checkpoint, ema)
    state = {name: value for name, value in weights.items() if isinstance(value, Tensor) and name not in _EMA_COUNTERS}
    if not state:
        entries = _listing([str(key) for key in checkpoint])
        raise UserError(f'{source} holds no weights, only the entries{entries}: give a file that holds a state dict')
    refuse_non_finite(state, source)
    while prefix := next((p for p in prefixes if all(name.startswith(p) for name in state)), None):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def load_weights(model: nn.Module, state: Mapping[str, Tensor], source: str | Path, strict: bool = True) -> None:
    """Fits `state` to the model, as `load_checkpoint` describes, and loads it.

    Args:
        model: Model to fill.
        state: Weights by the model's names.
        source: The file, for messages.
        strict: See `load_checkpoint`.

    Raises:
        UserError: A name or shape does not match (`strict`), or none does.
    """
    own = model.state_dict()
    state = resampled(_in_names_of(own, state), model, source)
    replaced = _classifiers_of_other_classes(model, state, own)
    no_token_head = is_wrapped(own) and 'aux_head.weight' in own.keys() - state.keys()
    if no_token_head:
        replaced |= {'aux_head.weight', 'aux_head.bias'}
    left = sorted({name.rpartition('.')[0] for name in replaced if name in state})
    state = {name: value for name, value in state.items() if name not in replaced}

    missing = [n for n in own if n not in state and n not in replaced and not n.endswith('num_batches_tracked')]
    unexpected = [name for name in state if name not in own]
    other_shape = [name for name in state if name in own and state[name].shape != own[name].shape]
    other_kind = [name for name in of_another_kind(own, state) if name not in other_shape]
    unfit = {*other_shape, *other_kind}
    fitting = {name: value for name, value in state.items() if name in own and name not in unfit}
    if missing or unexpected or unfit:
        shapes = [f'{n} {list(state[n].shape)} instead of {list(own[n].shape)}' for n in other_shape]
        kinds = [f'{n} {_kind(state[n])} instead of {_kind(own[n])}' for n in other_kind]
        complaint = (
            f'{source} does not fit {_architecture(model) or type(model).__name__} '
            f'({len(fitting)} of {len(own)} tensors do): {len(missing)} missing{_listing(missing)}, '
            f'{len(unexpected)} unexpected{_listing(unexpected)}, {len(shapes)} of another shape{_listing(shapes)}'
            + (f', {len(kinds)} of another type{_listing(kinds)}' if kinds else '')
        )
        if strict or not fitting:
            partly = ', or pass strict=False to load what fits' if fitting else ''
            raise UserError(f'{complaint}; create the model that the file was made from{partly}')
        _logger.warning('%s', complaint)
    if no_token_head:
        _logger.warning("%s has no token head: the model's stays as it is; token_score_weight=0 scores without", source)
    if left:
        _logger.warning('%s has other classes than the model: %s not loaded', source, ' and '.join(left))
    model.load_state_dict(fitting, strict=False)


def of_another_kind(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Names of weights that are integer, bool or complex where the model's are floating point, or vice versa.

    Copying would convert them silently. Counters and index tables may be stored as floating point.

    Args:
        own: weights of the model.
        state: weights under the model's names; other values than tensors are ignored.
    """
    pairs = {name: (x, own[name]) for name, x in state.items() if name in own and isinstance(x, Tensor)}
    return [
        name
        for name, (x, expected) in pairs.items()
        if x.is_complex() != expected.is_complex() or (expected.is_floating_point() and not x.is_floating_point())
    ]


def refuse_other_kinds(own: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str | Path) -> None:
    """Checks the kinds of weights, see `of_another_kind`.

    Raises:
        UserError: a weight has another kind.
    """
    if names := of_another_kind(own, state):
        stored, expected = _kind(state[names[0]]), _kind(own[names[0]])
        raise UserError(
            f'{source} holds {names[0]} as {stored} and the model has {expected}: save the weights as real numbers '
            'where the file was made'
        )


def resampled(
    state: Mapping[str, Tensor], model: nn.Module, source: str | Path = 'the checkpoint'
) -> dict[str, Tensor]:
    """`state` with its position embedding resampled to the model's grid.

    A stored grid with as many tokens as the model's is assumed to be the same grid.

    Raises:
        UserError: The stored grid is not square, so that its shape is unknown.
    """
    state = dict(state)
    name = 'backbone.pos_embed' if 'backbone.pos_embed' in state else 'pos_embed'
    stored, own = state.get(name), getattr(model, 'pos_embed', None)
    grid = getattr(getattr(model, 'patch_embed', None), 'grid_size', None)
    if stored is None or own is None or grid is None or stored.shape == own.shape:
        return state
    if stored.ndim != 3 or own.ndim != 3 or stored.shape[2] != own.shape[2]:
        return state
    num_prefix_tokens = own.shape[1] - math.prod(grid)
    num_tokens = stored.shape[1] - num_prefix_tokens
    side = math.isqrt(max(0, num_tokens))
    if side == 0 or side * side != num_tokens:
        raise UserError(
            f'{source} has a position embedding of {num_tokens} tokens, not a square grid, and cannot be resampled to '
            f'{grid[0]}x{grid[1]}: create the model at the input size of the file and call set_input_size after loading'
        )
    _logger.info('%s: position embedding resampled from %dx%d to %dx%d', source, side, side, *grid)
    state[name] = resample_pos_embed(stored, grid, (side, side), num_prefix_tokens)
    return state


def resample_pos_embed(
    pos_embed: Tensor, new_grid: tuple[int, int], old_grid: tuple[int, int], num_prefix_tokens: int = 1
) -> Tensor:
    """Position embedding at another grid: bicubic without antialiasing, as the released weights were resampled.

    Args:
        pos_embed: `[1, P + rows * cols, D]`, starting with the entries of the prefix tokens, which are kept.
        new_grid: Rows and columns of the result.
        old_grid: Rows and columns of `pos_embed`.
        num_prefix_tokens: P.

    Returns:
        `[1, P + new rows * new cols, D]`; `pos_embed` itself if the grids are equal.
    """
    return resample_abs_pos_embed(pos_embed, list(new_grid), list(old_grid), num_prefix_tokens, antialias=False)


def is_wrapped(names: Iterable[str]) -> bool:
    """Whether the names are those of a `TokenLabelModel`: a backbone and a token head."""
    names = list(names)
    wrapped = [name for name in names if name.startswith('backbone.')]
    return bool(wrapped) and all(name.startswith('aux_head.') for name in set(names) - set(wrapped))


_EMA_COUNTERS = ('steps', 'n_averaged')


def _weights(checkpoint: Mapping, ema: bool) -> tuple[Mapping, bool]:
    """The entry of `checkpoint` with the weights, or `checkpoint` itself, and whether these are EMA weights."""
    averaged, raw = ('state_dict_ema', 'model_ema'), ('state_dict', 'model')
    if 'ema_state_dict' in checkpoint:  # MMEngine's EMAHook saves the EMA weights as `state_dict`, the raw ones here
        averaged, raw = ('state_dict',), ('ema_state_dict',)
    for key in averaged + raw if ema else raw + averaged:
        if isinstance(checkpoint.get(key), Mapping):
            return checkpoint[key], key in averaged
    return checkpoint, False


def _innermost(model: nn.Module) -> nn.Module:
    """The model inside DistributedDataParallel, `torch.compile`, our engine's classifier or timm's feature wrapper."""
    names = list(model.state_dict())
    for prefix in PREFIXES:
        if names and all(name.startswith(prefix) for name in names):
            return _innermost(model.get_submodule(prefix.rstrip('.')))
    return model


def _architecture(model: nn.Module) -> str | None:
    return (getattr(model, 'pretrained_cfg', None) or {}).get('architecture')


def _in_names_of(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """`state` under the model's names, if one of them is a `TokenLabelModel` and the other a bare backbone."""
    if is_wrapped(own) == is_wrapped(state):
        return state
    if is_wrapped(own):
        return {name if name in own else f'backbone.{name}': value for name, value in state.items()}
    kept = {name: value for name, value in state.items() if name.startswith('backbone.') or name in own}
    return {name.removeprefix('backbone.'): value for name, value in kept.items()}


def _classifiers_of_other_classes(
    model: nn.Module, state: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> frozenset[str]:
    """Names of all classifier parameters if one has another number of classes in `state`, or the model has none."""
    names = (getattr(model, 'pretrained_cfg', None) or {}).get('classifier') or ('head', 'aux_head')
    names = (names,) if isinstance(names, str) else names
    weights = [f'{name}.weight' for name in names if f'{name}.weight' in state]
    if any(name not in own or state[name].shape[:1] != own[name].shape[:1] for name in weights):
        return frozenset(f'{name}.{kind}' for name in names for kind in ('weight', 'bias'))
    return frozenset()


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix('torch.')


def _listing(names: Sequence[str]) -> str:
    """The first three names in parentheses, ' (a, b, c, ...)'; empty without names."""
    if not names:
        return ''
    return f' ({", ".join(names[:3])}{", ..." if len(names) > 3 else ""})'
