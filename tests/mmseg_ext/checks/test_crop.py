"""Crops that no image fills are named before training."""

import numpy as np
import pytest
from mmseg.registry import TRANSFORMS

import mmseg_ext  # noqa: F401  (registers the names)
from mmseg_ext.checks import datasets as dataset_check
from mmseg_ext.checks.crop import largest_size, warning_of_large_crop
from tests.mmseg_ext.checks.test_datasets import config, pair

LOAD = [dict(type='LoadImageFromFile'), dict(type='LoadLabelMap')]
RESIZES = [
    dict(type='Resize', scale=(128, 96), keep_ratio=True),
    dict(type='Resize', scale=(128, 96)),
    dict(type='Resize', scale=64),
    dict(type='Resize', scale_factor=1.5, keep_ratio=True),
    dict(type='RandomResize', scale=(128, 96), ratio_range=(2.0, 2.0), keep_ratio=True),
    dict(type='RandomResize', scale=[(128, 96), (128, 96)]),
    dict(type='RandomChoiceResize', scales=[(64, 48), (128, 96)][1:], keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
]


@pytest.mark.parametrize('step', RESIZES)
@pytest.mark.parametrize('size', [(30, 50), (50, 30), (200, 400)])
def test_the_largest_size_is_that_of_the_transform(step, size):
    results = dict(img=np.zeros((*size, 3), np.uint8), img_shape=size)
    assert largest_size(size, [*LOAD, step]) == TRANSFORMS.build(step)(results)['img'].shape[:2]


@pytest.mark.parametrize('step', [dict(type='RandomRotate', prob=1, degree=9), dict(type='Mine')])
def test_what_other_transforms_make_is_not_known(step):
    assert largest_size((30, 50), [*LOAD, step]) is None


@pytest.mark.parametrize(
    ('crop', 'ratio', 'sizes', 'warns'),
    [
        ((64, 64), 1.0, [(30, 50)], False),  # 96 or less of the shorter side
        ((64, 64), 0.5, [(30, 50), (20, 60)], True),
        ((64, 64), 0.5, [(30, 50), (96, 96)], True),
        ((48, 48), 0.5, [(20, 60), (96, 96)], False),
        (100, 1.0, [(30, 50)], True),
        (None, 1.0, [(30, 50)], False),
        ((999, 999), 1.0, [], False),
    ],
)
def test_a_crop_that_no_image_fills_is_found(crop, ratio, sizes, warns):
    resize = dict(type='RandomResize', scale=(128, 96), ratio_range=(0.1, ratio), keep_ratio=True)
    pipeline = [*LOAD, resize, dict(type='RandomCrop', crop_size=crop), dict(type='PackSegInputs')]
    said = warning_of_large_crop(pipeline, 'train_dataloader.dataset', sizes)
    assert bool(said) == warns
    assert not warns or 'train_dataloader.dataset.pipeline.3 (RandomCrop)' in said


def test_the_check_before_training_warns(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(dataset_check, 'rank_zero_log', said.append)
    for number in range(3):
        pair(tmp_path, str(number), ids=(0, 1, 2))
    pipeline = [*LOAD, dict(type='RandomCrop', crop_size=(64, 64)), dict(type='PackSegInputs')]
    dataset_check.check_datasets(config(tmp_path, pipeline=pipeline))
    assert len(said) == 1 and 'takes 64x64, which none of the 3 images' in said[0] and 'at most 20x30' in said[0]
