"""Loading the weights that are to be evaluated, and saying why they do not fit."""

import logging
from pathlib import Path

from mmengine.logging import print_log
from mmengine.runner import Runner

from mmseg_ext.checkpoints.strict_loading import other_head
from tokenlabel.checkpoints.weights import read_checkpoint, state_dict_of
from tokenlabel.errors import UserError


def load_trained_weights(runner: Runner, path: str | Path) -> None:
    """Loads a segmentation model's weights for evaluation.

    A warning tells where the checkpoint notes other class names than the test data has: numbers would be compared that
    mean different things.

    Args:
        runner: With the model, and the data to test it on.
        path: Checkpoint.

    Raises:
        UserError: The file cannot be read, or is of another model: said is whether it has another number of classes,
            another head or none.
    """
    try:
        checkpoint = runner.load_checkpoint(str(path))
    except UserError as error:
        state = state_dict_of(read_checkpoint(path), source=path)
        if reason := other_head(runner.model, state, path):
            raise UserError(reason) from error
        raise
    meta = checkpoint.get('meta', {})
    noted = (meta.get('dataset_meta') or {}).get('classes') or meta.get('CLASSES')  # MMSegmentation 1.x and 0.x
    tested = runner.test_loop.dataloader.dataset.metainfo.get('classes')
    if noted and tested and list(noted) != list(tested):
        different = next((f'{a} and {b}' for a, b in zip(noted, tested, strict=False) if a != b), 'their number')
        print_log(
            f'{path} was trained on other classes than the test data has ({different}): its scores mean nothing unless '
            'only names were changed.',
            logger='current',
            level=logging.WARNING,
        )
