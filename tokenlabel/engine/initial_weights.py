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
    """Loads EMA weights, where there are such, as `load_checkpoint` does.

    Position embeddings are resampled to the model's grid, and heads of other classes are left as they are. How the
    model scores stays as its targets want it.

    Args:
        model: a `TokenLabelClassifier`, or another with a method `load_initial_weights`; wrapped or not.
        path: a checkpoint, or the work dir of a run: its last one.

    Returns:
        The file that was read.

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
    rule = getattr(model.model, 'token_score_weight', None)
    load_checkpoint(model.model, file, ema=True)
    if rule is not None:
        model.model.token_score_weight = rule
    return file


def checkpoint_in(path: str | Path) -> Path:
    """The checkpoint that `path` is, or the last one of the work dir that it is.

    Raises:
        UserError: there is none, or the folder does not tell which.
    """
    found = last_checkpoint(path) if os.path.isdir(path) else path
    if found is None or not os.path.exists(found):
        raise UserError(
            f'There is no checkpoint at {path} to start from: name a checkpoint or the work dir of a run with '
            '--cfg-options initial_weights=PATH, or None to start from scratch.'
        )
    return Path(found)
