"""The reassessed labels of ImageNet's validation images."""

import json

import numpy as np
import pytest
from PIL import Image
from timm.data import ImageNetInfo, RealLabelsImagenet

from tokenlabel.data.imagenet_real import real_labels
from tokenlabel.data.images import LabeledImages
from tokenlabel.errors import UserError
from tokenlabel.transforms.image import EvalTransform

SYNSETS = ImageNetInfo('imagenet-1k').label_names()


@pytest.fixture
def validation(tmp_path):
    """Images 1 and 3 and, in the folder after, image 2."""
    for name in (
        'n01440764/ILSVRC2012_val_00000003',
        'n01440764/ILSVRC2012_val_00000001',
        'n02085620/ILSVRC2012_val_00000002',
    ):
        path = tmp_path / 'val' / f'{name}.JPEG'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    return LabeledImages(tmp_path / 'val', EvalTransform(8))


def test_images_are_told_by_their_names(validation, tmp_path):
    (tmp_path / 'real.json').write_text(json.dumps([[5], [], [7, 999]]))
    assert real_labels(validation, None, 1000, tmp_path / 'real.json') == [[5], [7, 999], []]


def test_the_labels_that_come_along_are_timm_s(validation):
    theirs = RealLabelsImagenet([None] * 50_000).real_labels
    keys = [validation.key(index).split('/')[1] for index in range(3)]
    assert real_labels(validation, None, 1000) == [theirs[key] for key in keys]


def test_they_are_in_the_numbers_of_the_model_s_classes(validation, tmp_path):
    (tmp_path / 'real.json').write_text(json.dumps([[5], [], [7, 999]]))
    reverse = SYNSETS[::-1]
    assert real_labels(validation, reverse, 1000, tmp_path / 'real.json') == [[994], [992, 0], []]


@pytest.mark.parametrize(('names', 'count'), [(None, 10), ([f'mine {i}' for i in range(1000)], 1000)])
def test_a_model_of_other_classes_is_refused(validation, names, count):
    with pytest.raises(UserError, match=rf'the model has {count} other classes: leave out --real'):
        real_labels(validation, names, count)


def test_images_of_other_names_are_refused(scenes):
    with pytest.raises(UserError, match=r'which the ReaL labels do not know'):
        real_labels(LabeledImages(scenes / 'imagenet/val', EvalTransform(8)), None, 1000)


@pytest.mark.parametrize('text', ['{}', '[1]', '[[1000]]', '[['])
def test_a_file_of_something_else_is_refused(validation, tmp_path, text):
    (tmp_path / 'real.json').write_text(text)
    with pytest.raises(UserError, match=r'real\.json (holds no ReaL labels|is not valid JSON)'):
        real_labels(validation, None, 1000, tmp_path / 'real.json')
