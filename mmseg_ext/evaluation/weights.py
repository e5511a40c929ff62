"""Loading the weights that are to be evaluated, and saying why they do not fit."""

import logging
from pathlib import Path

from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import nn

from tokenlabel.errors import UserError
from tokenlabel.models.checkpoint import read_checkpoint, state_dict_of

HEAD = 'decode_head.'
CLASSIFIER = f'{HEAD}conv_seg.weight'


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
        if reason := other_head(runner.model, path):
            raise UserError(reason) from error
        raise
    meta = checkpoint.get('meta') or {}
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


def other_head(model: nn.Module, path: str | Path) -> str | None:
    """One sentence on how the decode head in a checkpoint differs from the model's; None if it does not.

    Raises:
        UserError: The file cannot be read.
    """
    state = state_dict_of(read_checkpoint(path), source=path)
    own = {name[name.index(HEAD) :]: x for name, x in model.state_dict().items() if f'.{HEAD}' in f'.{name}'}
    theirs = {name: x for name, x in state.items() if name.startswith(HEAD)}
    if not theirs:
        return (
            f'Checkpoint {path} has no decode head, so it segments nothing yet: train with it as '
            'model.backbone.init_cfg.checkpoint, and test what that gives.'
        )
    if CLASSIFIER in own and CLASSIFIER in theirs and len(own[CLASSIFIER]) != len(theirs[CLASSIFIER]):
        return (
            f'Checkpoint {path} was trained for {len(theirs[CLASSIFIER])} classes and the config has '
            f'{len(own[CLASSIFIER])}: use the config it was trained with.'
        )
    missing, unexpected = sorted(own.keys() - theirs.keys()), sorted(theirs.keys() - own.keys())
    if missing or unexpected:
        examples = ', '.join([f'no {name}' for name in missing[:1]] + [f'{name} too many' for name in unexpected[:1]])
        return (
            f'Checkpoint {path} has another decode head than the config ({len(missing)} weights missing, '
            f'{len(unexpected)} left over: {examples}): use the config it was trained with.'
        )
    return None
