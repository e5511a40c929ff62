"""Class ids and scores that no class or number is: told with image and store, before they reach a device."""

import shutil

import numpy as np
import pytest
import torch

from tokenlabel.engine.preprocessor import ImagePreprocessor
from tokenlabel.engine.token_targets import TokenLabels
from tokenlabel.errors import UserError
from tokenlabel.labels.store import LabelStore
from tokenlabel.objective.loss import TokenLabelLoss


@pytest.fixture
def damaged_store(label_store, tmp_path):
    """A copy of the training store, in which all maps but the first have another number at one place."""

    def make(name: str, value: float) -> LabelStore:
        path = shutil.copytree(label_store, tmp_path / 'damaged')
        array = np.load(path / f'{name}-00000.npy', mmap_mode='r+')
        array[1:, 0, 2, 2] = value
        array.flush()
        return LabelStore(path)

    return make


@pytest.mark.parametrize(
    ('name', 'value', 'said'),
    [('classes', 999, 'names class 999 of 10'), ('scores', np.nan, 'has scores that are not finite')],
)
def test_pretraining_names_image_and_store(make_runner, damaged_store, name, value, said):
    store = damaged_store(name, value)
    runner = make_runner(**{'train_dataloader.dataset.label_store': str(store.path)})
    with pytest.raises(UserError, match=rf'damaged/{name}-00000\.npy is damaged: digit_\d/train_\d+\.jpg {said}'):
        runner.train()


def batch(**parts) -> dict:
    """Four images of 8 x 8 pixels, numbered 10 to 13."""
    return {'image': torch.zeros(4, 3, 8, 8, dtype=torch.uint8), 'index': torch.arange(10, 14), **parts}


class TestPreprocessor:
    """Whatever data set a batch comes from."""

    @pytest.fixture
    def preprocessor(self) -> ImagePreprocessor:
        preprocessor = ImagePreprocessor()
        preprocessor.class_counts = {'classes': 7, 'label': 7}
        return preprocessor

    @pytest.mark.parametrize('value', [-1, 7, 2**40])
    @pytest.mark.parametrize('name', ['classes', 'label'])
    def test_an_id_beyond_the_classes_names_its_image(self, preprocessor, name, value):
        parts = {'classes': torch.zeros(4, 2, 3, 3, dtype=torch.int64), 'label': torch.zeros(4, dtype=torch.int64)}
        parts[name][(2, 1, 1, 1) if name == 'classes' else 2] = value
        with pytest.raises(UserError, match=f'The {name} of image 12 .* name class {value}, but .* 7 classes'):
            preprocessor(batch(**parts), training=True)

    def test_an_evaluation_may_have_labels_of_other_classes(self, preprocessor):
        preprocessor(batch(label=torch.full((4,), 99)), training=False)

    def test_ids_of_classes_pass(self, preprocessor):
        parts = {'classes': torch.full((4, 2, 3, 3), 6), 'label': torch.tensor([0, 6, 3, 1])}
        assert preprocessor(batch(**parts), training=True)['batch']['label'].tolist() == [0, 6, 3, 1]


@pytest.mark.parametrize(
    ('options', 'checked'),
    [
        ({}, {'classes': 10}),
        ({'model.loss.ground_truth': True}, {'classes': 10, 'label': 10}),
        ({'model.targets': {'type': 'ImageLabels'}}, {'label': 10}),
        ({'model.targets': {'type': 'AnnotatorImageLabels'}}, {'classes': 10}),
    ],
)
def test_what_a_model_reads_is_checked_against_its_classes(make_runner, options, checked):
    """Labels that are not read may be missing, as those of a flat folder are."""
    assert make_runner(**options).model.data_preprocessor.class_counts == checked


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('targets.smoothing', 1.0),
        ('targets.smoothing', -0.1),
        ('targets.smoothing', float('nan')),
        ('targets.smoothing', 'a lot'),
        ('targets.k', 2.5),
        ('targets.k', 'a'),
        ('targets.k', True),
        ('targets.temperature', float('inf')),
        ('targets.temperature', float('nan')),
        ('targets.geometry', 'approximate'),
        ('loss.dense_weight', -1.0),
        ('loss.cls_weight', float('nan')),
        ('data_preprocessor.cutmix', float('inf')),
        ('data_preprocessor.mixup', float('nan')),
        ('data_preprocessor.erasing', 3),
    ],
)
def test_options_out_of_range_are_named(name, value):
    room, option = name.split('.')
    build = {'targets': TokenLabels, 'loss': TokenLabelLoss, 'data_preprocessor': ImagePreprocessor}[room]
    with pytest.raises(UserError, match=rf'{build.__name__}\.{option} is'):
        build(**{option: value})
