"""Images in class folders joined to a label store."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.label_stores import write_store
from tokenlabel.data.images import LabeledImages
from tokenlabel.errors import UserError
from tokenlabel.transforms.image import EvalTransform, TrainTransform
from tokenlabel.transforms.view import View


@pytest.fixture
def folder(tmp_path):
    """Two classes of three images each, of different sizes."""
    rng = np.random.default_rng(0)
    for name in ('cat', 'dog'):
        (tmp_path / 'images' / name).mkdir(parents=True)
        for index in range(3):
            pixels = rng.integers(0, 256, (40 + 10 * index, 60, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / 'images' / name / f'{index}.png')
    return tmp_path / 'images'


def keys(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*.png'))


def test_without_a_store_a_sample_is_an_image_and_its_class(folder):
    images = LabeledImages(folder, EvalTransform(32, crop_pct=1.0))
    sample = images[5]
    assert set(sample) == {'image', 'label'}
    assert sample['image'].dtype == torch.uint8 and sample['image'].shape == (3, 32, 32)
    assert sample['label'] == 1 and images.class_names == ['cat', 'dog']


def test_with_a_store_a_sample_carries_its_score_map_and_both_views(folder, tmp_path):
    store = write_store(tmp_path / 'store', keys(folder), num_classes=2, k=2, grid=4)
    images = LabeledImages(folder, TrainTransform(32, auto_augment=None), tmp_path / 'store')
    sample = images[4]
    row = store.indices([images.key(4)])[0]
    np.testing.assert_array_equal(sample['scores'], store[row].scores)
    np.testing.assert_array_equal(sample['classes'], store[row].classes)
    assert sample['view'].shape == (2, 3)
    torch.testing.assert_close(sample['map_view'], View.identity().tensor())


def test_a_sample_s_augmentation_is_a_function_of_seed_epoch_and_index(folder):
    def sample(seed, epoch, index):
        return LabeledImages(folder, TrainTransform(32), seed=seed)[epoch, index]['image']

    torch.manual_seed(1)
    first = sample(0, 3, 2)
    torch.manual_seed(2)
    assert torch.equal(first, sample(0, 3, 2))
    assert not torch.equal(first, sample(0, 4, 2))
    assert not torch.equal(first, sample(1, 3, 2))


def test_reading_a_sample_leaves_the_global_random_states_alone(folder):
    images = LabeledImages(folder, TrainTransform(32))
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    images[0, 0]
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize('content', ['absent', 'empty'])
def test_a_missing_or_empty_folder_is_named(tmp_path, content):
    if content == 'empty':
        (tmp_path / 'images').mkdir()
    with pytest.raises(UserError, match=r'images.*'):
        LabeledImages(tmp_path / 'images', EvalTransform(32))


def test_a_corrupt_image_is_named(folder):
    (folder / 'cat' / '1.png').write_bytes(b'not an image')
    with pytest.raises(UserError, match=r'cat/1\.png cannot be read'):
        LabeledImages(folder, EvalTransform(32))[1]


def test_a_truncated_jpeg_is_named(folder):
    path = folder / 'cat' / '9.jpg'
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:1500])
    images = LabeledImages(folder, EvalTransform(32))
    broken = next(index for index in range(len(images)) if images.key(index) == 'cat/9.jpg')
    with pytest.raises(UserError, match=r'cat/9\.jpg cannot be read'):
        images[broken]


def test_a_missing_store_is_said_with_the_command_that_makes_it(folder, tmp_path):
    with pytest.raises(UserError, match=r'python tools/annotate\.py .*images .*nowhere --annotator'):
        LabeledImages(folder, EvalTransform(32), tmp_path / 'nowhere')


def test_images_without_labels_are_counted_and_the_first_three_named(folder, tmp_path):
    write_store(tmp_path / 'store', keys(folder)[:2], num_classes=2, k=2, grid=4)
    with pytest.raises(UserError, match=r'4 of the 6 images.*cat/2\.png, dog/0\.png, dog/1\.png\)'):
        LabeledImages(folder, EvalTransform(32), tmp_path / 'store')


def test_a_store_with_other_class_names_is_refused(folder, tmp_path):
    write_store(tmp_path / 'store', keys(folder), num_classes=2, k=2, grid=4, class_names=['dog', 'cat'])
    with pytest.raises(UserError, match=r'`dog` where the folder has `cat`'):
        LabeledImages(folder, EvalTransform(32), tmp_path / 'store')
