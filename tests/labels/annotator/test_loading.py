"""Loading annotators: weights, classes, input size."""

from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import timm
import torch
from timm.data.readers import create_reader

from tests.tiny_classifiers import VIT, tiny
from tokenlabel.errors import UserError
from tokenlabel.labels.annotator import (
    annotator_view,
    class_names,
    load_annotator,
    map_side,
    read_class_names,
    weights_digest,
)
from tokenlabel.labels.annotator.dense_classifier import DenseClassifier
from tokenlabel.labels.view_rule import CenterCrop, Native, Squash


@pytest.fixture
def weights(tmp_path) -> Path:
    """Checkpoint of a tiny classifier into three classes."""
    torch.manual_seed(0)
    model = timm.create_model('test_resnet', num_classes=3)
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'weights.pth')
    return tmp_path / 'weights.pth'


def test_a_checkpoint_brings_its_number_of_classes(weights):
    annotator = load_annotator('test_resnet', weights, size=64)
    assert annotator.dense.num_classes == 3
    assert map_side(annotator.dense, 64) == 2
    assert annotator.record['digest'] == weights_digest(load_annotator('test_resnet', weights, size=96).dense.model)


def test_the_digest_tells_weights_apart(weights):
    one = load_annotator('test_resnet', weights)
    with torch.no_grad():
        one.dense.model.fc.bias[0] += 1
    assert weights_digest(one.dense.model) != one.record['digest']


def test_the_input_is_the_one_timm_evaluates_with(weights):
    annotator = load_annotator('test_resnet', weights)
    assert annotator.size == 160
    assert annotator.mean == (0.5, 0.5, 0.5)


def test_a_vit_is_fitted_to_the_input_size(tmp_path):
    torch.save(tiny('vit_tiny_patch16_224', **VIT).state_dict(), tmp_path / 'vit.pth')
    annotator = load_annotator('vit_tiny_patch16_224', tmp_path / 'vit.pth', size=48, model_kwargs=VIT)
    assert annotator.dense.num_classes == 7
    assert map_side(annotator.dense, 48) == 6


@pytest.mark.parametrize(
    ('name', 'kwargs', 'said'),
    [
        ('test_resnot', {}, 'There is no annotator test_resnot: did you mean test_resnet'),
        ('test_resnet', {'num_classes': 5}, 'classifies into 3 classes, not 5'),
        ('test_resnet', {'model_kwargs': {'colour': 'red'}}, r"cannot be made with \{'colour': 'red'"),
        ('test_vit', {}, 'weights.pth'),
    ],
)
def test_what_cannot_be_loaded_says_why(weights, name, kwargs, said):
    with pytest.raises(UserError, match=said):
        load_annotator(name, weights, **kwargs)


def test_unreachable_pretrained_weights_name_the_other_way():
    with (
        mock.patch('timm.create_model', side_effect=ConnectionError('no route to host')),
        pytest.raises(UserError, match=r'No pretrained weights for test_resnet \(no route to host\).*--checkpoint'),
    ):
        load_annotator('test_resnet')


def test_an_input_size_that_the_model_does_not_take_is_refused():
    dense = DenseClassifier(tiny('vit_tiny_patch16_224', **VIT))
    with pytest.raises(UserError, match='does not take images of 64x64 pixels'):
        map_side(dense, 64)


@pytest.mark.parametrize(
    ('make', 'said'),
    [
        (lambda: tiny('test_resnet'), 'cells of 32 pixels, which do not divide 80: choose an image size of 64 or 96'),
        (lambda: tiny('vit_tiny_patch16_224', **VIT | {'img_size': 80, 'patch_size': 12}), 'cells of 12 pixels'),
    ],
)
def test_an_input_size_that_is_no_whole_number_of_cells_is_refused(make, said):
    with pytest.raises(UserError, match=said):
        map_side(DenseClassifier(make()), 80)


@pytest.mark.parametrize(
    ('name', 'native', 'size'),
    [('tf_efficientnet_lite2', 260, 288), ('efficientnet_b1', 288, 288), ('tf_efficientnet_b5', 456, 480)],
)
def test_without_a_size_the_nearest_above_that_the_cells_divide_is_taken(tmp_path, name, native, size):
    torch.save(timm.create_model(name).state_dict(), tmp_path / 'a.pth')
    annotator = load_annotator(name, tmp_path / 'a.pth')
    assert (annotator.native_size, annotator.size) == (native, size)
    assert map_side(annotator.dense, size) == size // 32
    assert load_annotator(name, tmp_path / 'a.pth', size=224).size == 224


def test_class_names_are_the_folders_where_there_is_one_for_each_class(tmp_path):
    for name in ('class a', 'class b', 'class c'):
        (tmp_path / name).mkdir()
        (tmp_path / name / '1.png').touch()
    reader = create_reader('', str(tmp_path))
    assert class_names(reader, 3) == ['class a', 'class b', 'class c']
    assert class_names(reader, 7) is None


def test_class_names_are_imagenets_where_the_number_says_so_and_the_folders_do_not():
    flat = SimpleNamespace(class_to_idx={})
    names = class_names(flat, 1000)
    assert names[0] == 'n01440764'
    assert names == sorted(names)
    assert len(class_names(flat, 21841)) == 21841
    own = SimpleNamespace(class_to_idx={f'class {number:03d}': number for number in range(1000)})
    assert class_names(own, 1000)[7] == 'class 007'


def test_class_names_come_from_a_file_one_a_line(tmp_path):
    path = tmp_path / 'names.txt'
    path.write_text('cat\nélan\n', encoding='utf-8')
    assert read_class_names(path, 2) == ['cat', 'élan']
    with pytest.raises(UserError, match=r'names\.txt names 2 classes, but the annotator has 3'):
        read_class_names(path, 3)
    with pytest.raises(UserError, match=r'nowhere\.txt cannot be read'):
        read_class_names(tmp_path / 'nowhere.txt', 3)


def test_each_view_takes_its_arguments_from_the_annotator(weights):
    annotator = load_annotator('test_resnet', weights, size=64)
    assert annotator_view(annotator, 'squash') == Squash(64)
    assert annotator_view(annotator, 'center-crop') == CenterCrop(64, 0.95)
    assert annotator_view(annotator, 'center-crop', 0.5) == CenterCrop(64, 0.5)
    assert annotator_view(annotator, 'native') == Native(64, (128, 128, 128))
    with pytest.raises(UserError, match='--crop-pct does not go with --view native'):
        annotator_view(annotator, 'native', 0.5)


def test_an_annotator_whose_weights_are_nan_or_no_real_numbers_annotates_nothing(tmp_path, weights):
    contents = torch.load(weights, weights_only=True)
    state = contents.get('state_dict', contents)
    name = next(name for name, x in state.items() if x.ndim == 4)
    torch.save({'state_dict': state | {name: state[name] * float('nan')}}, tmp_path / 'nan.pth')
    with pytest.raises(UserError, match=rf'nan\.pth holds weights that are NaN or infinite \(the first: {name}'):
        load_annotator('test_resnet', tmp_path / 'nan.pth')
    torch.save({'state_dict': state | {name: state[name].bool()}}, tmp_path / 'bool.pth')
    with pytest.raises(UserError, match=rf'1 of another type \({name} bool instead of float32'):
        load_annotator('test_resnet', tmp_path / 'bool.pth')


def test_a_checkpoint_s_own_class_names_go_first(tmp_path, weights):
    contents = torch.load(weights, weights_only=True)
    torch.save(contents | {'tokenlabel': {'class_names': ['x', 'y', 'z']}}, tmp_path / 'named.pth')
    annotator = load_annotator('test_resnet', tmp_path / 'named.pth')
    assert annotator.class_names == ['x', 'y', 'z']
    assert class_names(mock.Mock(class_to_idx={'a': 0, 'b': 1, 'c': 2}), 3, annotator.class_names) == ['x', 'y', 'z']
    assert load_annotator('test_resnet', weights).class_names is None
