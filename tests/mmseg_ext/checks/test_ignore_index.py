"""One label to ignore: stated once it holds everywhere, stated differently it is refused."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

import mmseg_ext  # noqa: F401  (registers the names)
from mmseg_ext.checks.ignore_index import settle_ignore_index
from mmseg_ext.datasets.load_label_map import read_label_map
from mmseg_ext.datasets.mask_classes import counted_classes
from tokenlabel.errors import UserError

PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadLabelMap'),
    dict(type='RandomCrop', crop_size=(64, 64), cat_max_ratio=0.75),
    dict(type='RandomApply', transforms=[dict(type='RandomRotate', prob=0.5, degree=10)]),
    dict(type='Pad', size=(64, 64)),
    dict(type='PackSegInputs'),
]


def config(**changes) -> Config:
    loader = dict(dataset=dict(type='ImageMaskFolders', classes=['a', 'b'], pipeline=PIPELINE))
    config = Config(
        dict(
            model=dict(
                data_preprocessor=dict(type='SegDataPreProcessor', seg_pad_val=255),
                decode_head=dict(type='UPerHead', num_classes=2),
                auxiliary_head=[dict(type='FCNHead', num_classes=2), dict(type='STDCHead')],
            ),
            train_dataloader=loader,
            val_dataloader=loader,
            val_evaluator=[dict(type='StreamingIoU')],
        )
    )
    config.merge_from_dict(changes, allow_list_keys=True)
    return config


@pytest.mark.parametrize(
    'place', ['train_dataloader.dataset.ignore_index', 'model.decode_head.ignore_index', 'val_evaluator.0.ignore_index']
)
def test_a_label_that_is_stated_once_is_ignored_everywhere(place):
    settled = config(**{place: 2})
    assert settle_ignore_index(settled) == 2
    for loader in (settled.train_dataloader, settled.val_dataloader):
        _, load, crop, apply, pad, _ = loader.dataset.pipeline
        rotate = apply.transforms[0]
        stated = (loader.dataset.ignore_index, load.ignore_index, crop.ignore_index, rotate.seg_pad_val, pad.pad_val)
        assert stated == (2, 2, 2, 2, dict(img=0, seg=2))
    assert settled.model.decode_head.ignore_index == settled.model.auxiliary_head[0].ignore_index == 2
    assert 'ignore_index' not in settled.model.auxiliary_head[1]
    assert settled.model.data_preprocessor.seg_pad_val == 2
    assert settled.val_evaluator[0].ignore_index == 2


def test_a_config_that_states_none_is_left_as_it_is():
    settled = config()
    assert settle_ignore_index(settled) == 255
    assert settled.to_dict() == config().to_dict()


@pytest.mark.parametrize(
    'places',
    [
        ('train_dataloader.dataset.ignore_index', 'model.decode_head.ignore_index'),
        ('model.decode_head.ignore_index', 'model.auxiliary_head.0.ignore_index'),
        ('val_dataloader.dataset.ignore_index', 'val_evaluator.0.ignore_index'),
        ('train_dataloader.dataset.pipeline.2.ignore_index', 'model.data_preprocessor.seg_pad_val'),
    ],
)
def test_two_labels_are_refused_by_their_places(places):
    first, second = (place.replace('.', r'\.') for place in places)
    with pytest.raises(UserError, match=rf'({first} is 2 but {second} is 3|{second} is 3 but {first} is 2)'):
        settle_ignore_index(config(**dict(zip(places, (2, 3), strict=True))))


@pytest.mark.parametrize(
    ('loss', 'key'),
    [('TverskyLoss', 'ignore_index'), ('DiceLoss', 'ignore_index'), ('OhemCrossEntropy', 'ignore_label')],
)
def test_losses_that_have_a_label_of_their_own_to_ignore_get_it(loss, key):
    losses = [dict(type='CrossEntropyLoss'), dict(type=loss)]
    settled = config(**{'model.decode_head.loss_decode': losses, 'train_dataloader.dataset.ignore_index': 2})
    settle_ignore_index(settled)
    assert settled.model.decode_head.loss_decode == [dict(type='CrossEntropyLoss'), {'type': loss, key: 2}]
    losses = [{'type': loss, key: 255}]
    with pytest.raises(UserError, match=rf'ignore_index is 2 but model\.decode_head\.loss_decode\.0\.{key} is 255'):
        settle_ignore_index(
            config(**{'model.decode_head.loss_decode': losses, 'train_dataloader.dataset.ignore_index': 2})
        )


def test_a_dice_loss_may_leave_out_a_class():
    settled = config(**{'model.decode_head.loss_decode': [dict(type='DiceLoss', ignore_index=0)]})
    assert settle_ignore_index(settled) == 255
    assert settled.model.decode_head.loss_decode == [dict(type='DiceLoss', ignore_index=0)]


@pytest.mark.parametrize('place', ['model.decode_head.ignore_index', 'val_evaluator.0.ignore_index'])
def test_a_class_that_heads_or_metrics_alone_ignore_is_refused(place):
    with pytest.raises(UserError, match=rf'{place} is 0, the number of a class that the data sets do not ignore'):
        settle_ignore_index(config(**{place: 0}))
    assert settle_ignore_index(config(**{place: 0, 'train_dataloader.dataset.ignore_index': 0})) == 0


@pytest.mark.parametrize('key', ['model.data_preprocessor.seg_pad_val', 'train_dataloader.dataset.pipeline.4.pad_val'])
def test_padding_that_would_be_learned_is_refused(key):
    value = dict(img=0, seg=1) if key.endswith('.pad_val') else 1
    with pytest.raises(UserError, match='padding would be learned as class 1'):
        settle_ignore_index(config(**{key: value}))


@pytest.mark.parametrize('label', [-1, 256, 2.5, '2', True, [2]])
def test_a_label_that_no_mask_can_hold_is_refused(label):
    with pytest.raises(UserError, match=r'decode_head\.ignore_index is .*: set one of the numbers .* 0 to 255'):
        settle_ignore_index(config(**{'model.decode_head.ignore_index': label}))


@pytest.mark.parametrize('reduce_zero_label', [False, True])
def test_what_is_ignored_is_read_as_the_label_to_ignore(tmp_path, reduce_zero_label):
    stored = np.array([[0, 1, 2, 255]], np.uint8) + np.uint8(reduce_zero_label) * np.array([[1, 1, 1, 0]], np.uint8)
    Image.fromarray(stored).save(tmp_path / 'a.png')
    classes = [counted_classes(2, reduce_zero_label, ignore_index=number) for number in (2, 5)]
    labels = read_label_map(tmp_path / 'a.png', classes[0], ignore_index=2)
    assert labels.tolist() == [[0, 1, 2, 2]]
    with pytest.raises(UserError, match='holds id'):
        read_label_map(tmp_path / 'a.png', classes[1], ignore_index=5)


def test_cross_entropy_takes_class_weights_with_every_average():
    from mmseg.registry import MODELS

    logits, labels = torch.randn(2, 3, 4, 4), torch.arange(32).view(2, 4, 4) % 3
    labels[0, :2] = 255
    weights = [1.0, 2.0, 3.0]
    expected = torch.nn.functional.cross_entropy(logits, labels, torch.tensor(weights), ignore_index=255)
    for average in (False, True):
        loss = MODELS.build(dict(type='mmseg.CrossEntropyLoss', class_weight=weights, avg_non_ignore=average))
        torch.testing.assert_close(loss(logits, labels, ignore_index=255), expected)
