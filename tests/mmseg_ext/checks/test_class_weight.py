"""Weights of classes by how often they occur, and losses for rare classes."""

import pytest

from mmseg_ext.checks.class_weight import settle_class_weight
from tests.mmseg_ext.checks.test_data_report import config, write
from tests.tiny_segmentation import tiny_config
from tokenlabel.engine.config.run_config import register_imports
from tokenlabel.engine.runner import Runner


def with_losses(folder, *losses: dict):
    found = config(folder)
    found.model.decode_head = dict(loss_decode=losses[0] if len(losses) == 1 else list(losses))
    return found


def test_weights_are_one_over_the_root_of_the_share_with_a_mean_of_1(tmp_path):
    write(tmp_path, 'train', 'a', [[0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 255]])  # shares 0.9 and 0.1
    settled = with_losses(tmp_path, dict(type='CrossEntropyLoss', class_weight='auto'))
    settle_class_weight(settled)
    assert settled.model.decode_head.loss_decode.class_weight == [0.5, 1.5, 1.0]


def test_each_loss_that_asks_for_it_has_them_and_no_other(tmp_path):
    write(tmp_path, 'train', 'a', [[0, 1, 2]])
    settled = with_losses(tmp_path, dict(class_weight='auto'), dict(class_weight=[1, 2, 3]), dict(type='DiceLoss'))
    settle_class_weight(settled)
    assert [loss.get('class_weight') for loss in settled.model.decode_head.loss_decode] == [[1.0] * 3, [1, 2, 3], None]


def test_where_nothing_is_trained_there_are_none(tmp_path):
    settled = with_losses(tmp_path, dict(class_weight='auto'))
    settle_class_weight(settled, train=False)
    assert settled.model.decode_head.loss_decode.class_weight is None


@pytest.mark.parametrize(
    'loss',
    [
        dict(type='DiceLoss', loss_name='loss_second'),
        dict(type='LovaszLoss', reduction='none', loss_name='loss_second'),
    ],
    ids=lambda loss: loss['type'],
)
def test_a_second_loss_trains(tmp_path, loss):
    settled = tiny_config(tmp_path)
    first = dict(type='CrossEntropyLoss', loss_name='loss_ce', loss_weight=1.0)
    settled.model.decode_head.loss_decode = [first, loss]
    settled.default_hooks.checkpoint.interval = -1
    settled.default_hooks.logger.interval = 1
    register_imports(settled)
    runner = Runner.from_cfg(settled)
    runner.train()
    assert runner.message_hub.get_scalar('train/decode.loss_second').current() > 0
