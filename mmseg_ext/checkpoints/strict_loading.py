"""Loads a complete segmentation model, with a one-sentence error if weights do not fit."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from tokenlabel.checkpoints.weights import refuse_other_kinds
from tokenlabel.errors import UserError

HEAD = 'decode_head.'
CLASSIFIER = f'{HEAD}conv_seg.weight'
ADVICE = 'use the config it was trained with.'


def load_all(model: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Loads all weights of a segmentation model; position embeddings are resampled to its grid.

    Args:
        model: Model to fill.
        state: Weights under the model's names. BatchNorm's `num_batches_tracked` may be missing.
        source: Their file, for messages.

    Raises:
        UserError: As `other_head`, or another weight is missing, unexpected or of another shape.
    """
    if reason := other_head(model, state, source):
        raise UserError(reason)
    refuse_other_kinds(model.state_dict(), state, source)
    try:
        model.load_state_dict(state, strict=False)
        differences = _differences(model.state_dict(), state)
    except RuntimeError as error:  # lists other shapes, one per line
        differences = ''.join(str(error).splitlines()[1:2]).strip().rstrip('.')
    if differences:
        raise UserError(f'Checkpoint {source} does not fit the config ({differences}): {ADVICE}')


def other_head(model: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> str | None:
    """One sentence on how the decode head of a checkpoint differs from the model's; None if it does not.

    Args:
        model: The model, possibly in wrappers.
        state: The checkpoint's weights, under the names of a model without wrappers.
        source: Their file, for messages.
    """
    own = {name[name.index(HEAD) :]: x for name, x in model.state_dict().items() if f'.{HEAD}' in f'.{name}'}
    stored = {name: x for name, x in state.items() if name.startswith(HEAD)}
    if not stored:
        return (
            f'Checkpoint {source} has no decode head, so it cannot segment: set it as '
            'model.backbone.init_cfg.checkpoint, train, and test the resulting checkpoint.'
        )
    classes = [x[CLASSIFIER].shape[:1].numel() for x in (stored, own) if CLASSIFIER in x]
    if len(set(classes)) == 2:
        return f'Checkpoint {source} was trained for {classes[0]} classes and the config has {classes[1]}: {ADVICE}'
    if differences := _differences(own, stored):
        return f'Checkpoint {source} has another decode head than the config ({differences}): {ADVICE}'
    return None


def _differences(own: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> str:
    """Numbers of missing and unexpected names, each with the first one; empty if the names are equal."""
    missing = [name for name in own if name not in stored and not name.endswith('num_batches_tracked')]
    kinds = {'missing': missing, 'left over': [name for name in stored if name not in own]}
    return '; '.join(f'{len(names)} {kind}, first {names[0]}' for kind, names in kinds.items() if names)
