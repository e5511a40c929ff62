"""Loads weights for evaluation and explains why they do not fit."""

import logging
from pathlib import Path

from mmengine.logging import print_log
from mmengine.runner import Runner

from mmseg_ext.checkpoints.strict_loading import other_head
from tokenlabel.checkpoints.weights import read_checkpoint, state_dict_of
from tokenlabel.errors import UserError


def load_trained_weights(runner: Runner, path: str | Path) -> None:
    """Loads a segmentation model's weights for evaluation.

    Warns if the checkpoint's class names differ from those of the test data, because the same number would then mean
    different classes.

    Args:
        runner: Runner with the model and the test data.
        path: Checkpoint.

    Raises:
        UserError: The file cannot be read or belongs to another model; the message says whether it has another number
            of classes, another head or no head.
    """
    try:
        checkpoint = runner.load_checkpoint(str(path))
    except UserError as error:
        state = state_dict_of(read_checkpoint(path), source=path)
        if reason := other_head(runner.model, state, path):
            raise UserError(reason) from error
        raise
    meta = checkpoint.get('meta', {})
    stored = (meta.get('dataset_meta') or {}).get('classes') or meta.get('CLASSES')  # MMSegmentation 1.x and 0.x
    tested = runner.test_loop.dataloader.dataset.metainfo.get('classes')
    if stored and tested and list(stored) != list(tested):
        different = next((f'{a} and {b}' for a, b in zip(stored, tested, strict=False) if a != b), 'their number')
        print_log(
            f'{path} was trained on other classes than the test data has ({different}): its scores are meaningless '
            'unless only names changed.',
            logger='current',
            level=logging.WARNING,
        )
