"""Where training starts from: weights of another run, resolution or number of classes."""

import os
from pathlib import Path

import torch
from mmengine.model import is_model_wrapper

from tokenlabel.checkpoints.weights import load_checkpoint
from tokenlabel.engine.classifier import TokenLabelClassifier
from tokenlabel.engine.resuming.checkpoint_files import last_checkpoint
from tokenlabel.errors import UserError


def load_initial_weights(model: torch.nn.Module, path: str | Path) -> Path:
    """Loads the weights of a checkpoint, its EMA weights if it has them, as `load_checkpoint` does.

    Position embeddings are resampled to the model's grid. Heads with other classes keep their initialisation, and the
    model keeps its `token_score_weight`.

    Args:
        model: a `TokenLabelClassifier` or a model with a method `load_initial_weights`; may be wrapped in DDP.
        path: a checkpoint, or the work dir of a run, whose last checkpoint is loaded.

    Returns:
        The path of the checkpoint.

    Raises:
        UserError: there is no such checkpoint, it does not fit, or the model is of another kind.
    """
    model = model.module if is_model_wrapper(model) else model
    loads_itself = getattr(model, 'load_initial_weights', None)
    if not isinstance(model, TokenLabelClassifier) and loads_itself is None:
        raise UserError(
            f'initial_weights are not for {type(model).__name__}: name the weights of a segmentation backbone with '
            'model.backbone.init_cfg.checkpoint, or all of a model with load_from.'
        )
    file = checkpoint_in(path)
    if loads_itself is not None:
        loads_itself(file)
        return file
    token_score_weight = getattr(model.model, 'token_score_weight', None)
    load_checkpoint(model.model, file, ema=True)
    if token_score_weight is not None:
        model.model.token_score_weight = token_score_weight
    return file


def checkpoint_in(path: str | Path) -> Path:
    """Returns `path` if it is a checkpoint, or the last checkpoint if it is a work dir.

    Raises:
        UserError: there is no checkpoint, or the last one of the folder is unknown.
    """
    found = last_checkpoint(path) if os.path.isdir(path) else path
    if found is None or not os.path.exists(found):
        raise UserError(
            f'There is no checkpoint at {path} to start from: name a checkpoint or the work dir of a run with '
            '--cfg-options initial_weights=PATH, or None to start from scratch.'
        )
    return Path(found)
