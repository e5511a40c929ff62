"""Images joined to a label store."""

import json
import shutil
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from tests.label_stores import write_store
from tests.reference.class_map import dense_mapped
from tests.reference.targets import dense_maps
from tokenlabel.data.images import LabeledImages
from tokenlabel.data.sampler import SampleIndex
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
    assert set(sample) == {'image', 'label', 'index'}
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
        return LabeledImages(folder, TrainTransform(32), seed=seed)[SampleIndex(index, epoch)]['image']

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
    images[SampleIndex(0, 0)]
    assert torch.equal(torch.rand(3), expected)


def test_a_transform_that_drafts_gets_jpeg_files_that_are_not_decoded(tmp_path):
    class Sizes(TrainTransform):
        def __call__(self, image):
            assert image.format == 'JPEG' and image.tile
            return super().__call__(image)

    (tmp_path / 'cat').mkdir()
    Image.new('RGB', (64, 48)).save(tmp_path / 'cat/1.jpg')
    sample = LabeledImages(tmp_path, Sizes(32, draft=True))[0]
    assert sample['image'].shape == (3, 32, 32)


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


@pytest.mark.parametrize('transform', [EvalTransform(32), TrainTransform(32, draft=True)], ids=['decoded', 'draft'])
def test_a_truncated_jpeg_is_named(folder, transform):
    path = folder / 'cat' / '9.jpg'
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:1500])
    images = LabeledImages(folder, transform)
    broken = next(index for index in range(len(images)) if images.key(index) == 'cat/9.jpg')
    with pytest.raises(UserError, match=r'cat/9\.jpg cannot be read'):
        images[broken]


def test_a_missing_store_is_said_with_the_command_that_makes_it(folder, tmp_path):
    with pytest.raises(UserError, match=r'tokenlabel annotate .*images .*nowhere --annotator'):
        LabeledImages(folder, EvalTransform(32), tmp_path / 'nowhere')


def test_images_without_labels_are_counted_and_the_first_three_named(folder, tmp_path):
    write_store(tmp_path / 'store', keys(folder)[:2], num_classes=2, k=2, grid=4)
    with pytest.raises(UserError, match=r'4 of the 6 images.*cat/2\.png, dog/0\.png, dog/1\.png\)'):
        LabeledImages(folder, EvalTransform(32), tmp_path / 'store')


def store_of(folder, path, names, k: int = 2, num_classes: int | None = None, skipped=()):
    return write_store(
        path, keys(folder), num_classes=num_classes or len(names), k=k, grid=4, class_names=names, skipped=skipped
    )


def labels(images):
    return {images.key(index): images[index]['label'] for index in range(len(images))}


def test_a_store_of_other_classes_is_refused(folder, tmp_path):
    store_of(folder, tmp_path / 'store', ['dog', 'cow'])
    with pytest.raises(UserError, match=r'`dog` where the folder has `cat`'):
        LabeledImages(folder, EvalTransform(32), tmp_path / 'store')


def test_labels_are_numbered_as_the_store_numbers_its_classes(folder, tmp_path):
    store_of(folder, tmp_path / 'store', ['ant', 'dog', 'cow', 'cat'])
    images = LabeledImages(folder, EvalTransform(32), tmp_path / 'store')
    assert labels(images) == {key: {'cat': 3, 'dog': 1}[key[:3]] for key in keys(folder)}
    assert images.class_names == ['ant', 'dog', 'cow', 'cat'] and images.num_classes == 4
    assert images.unlabelled is None


def test_equal_counts_are_taken_for_the_same_classes_where_names_are_not_known(folder, tmp_path):
    store_of(folder, tmp_path / 'store', None, num_classes=2)
    images = LabeledImages(folder, EvalTransform(32), tmp_path / 'store')
    assert images.class_names == ['cat', 'dog'] and images[5]['label'] == 1


@pytest.mark.parametrize('names', [None, ['ant', 'bee', 'cow']])
def test_images_of_other_classes_than_the_annotator_s_have_no_label(folder, tmp_path, names):
    store_of(folder, tmp_path / 'store', names, num_classes=3)
    images = LabeledImages(folder, EvalTransform(32), tmp_path / 'store')
    assert set(labels(images).values()) == {-1}
    assert 'its 2 classes are not among the 3 of the label store' in images.unlabelled
    assert images.class_names == (names or []) and images.num_classes == 3


def test_images_that_the_annotator_skipped_are_left_out(folder, tmp_path):
    store = store_of(folder, tmp_path / 'store', ['cat', 'dog'], skipped=['cat/1.png', 'dog/0.png'])
    images = LabeledImages(folder, EvalTransform(32), tmp_path / 'store')
    left = ['cat/0.png', 'cat/2.png', 'dog/1.png', 'dog/2.png']
    assert len(images) == 4 and list(labels(images)) == left
    assert images.num_skipped == images.metainfo['num_skipped'] == 2
    assert images.num_absent == 0
    for index, key in enumerate(left):
        np.testing.assert_array_equal(images[index]['scores'], store[store.indices([key])[0]].scores)


def test_annotated_images_that_are_not_here_are_counted(folder, tmp_path):
    write_store(tmp_path / 'store', keys(folder), num_classes=2, k=2, grid=4)
    (folder / 'cat/1.png').unlink()
    images = LabeledImages(folder, TrainTransform(32), tmp_path / 'store')
    assert (images.num_absent, images.first_absent) == (1, 'cat/1.png')
    assert len(images) == 5


def test_a_class_map_turns_maps_of_annotator_classes_into_those_of_the_images(folder, tmp_path):
    store = store_of(folder, tmp_path / 'store', ['tabby', 'beagle', 'tiger', 'crane'], k=4)
    (tmp_path / 'map.json').write_text(json.dumps({'tabby': 'cat', 'tiger': 'cat', 'beagle': 'dog'}))
    images = LabeledImages(folder, EvalTransform(32), tmp_path / 'store', class_map=tmp_path / 'map.json')
    sample, whole = images[0], store[store.indices([images.key(0)])[0]]
    dense = dense_mapped(whole.scores, whole.classes.astype(int), np.array([0, 1, 0, -1]), 2)
    ours = dense_maps(sample['scores'][None], sample['classes'][None], 2)[0]
    np.testing.assert_allclose(ours, dense, atol=0.01)
    assert (images.class_names, images.num_classes, sample['label']) == (['cat', 'dog'], 2, 0)


def test_a_class_map_without_a_store_is_refused(folder, tmp_path):
    with pytest.raises(UserError, match=r'map\.txt is for the classes of an annotator: set label_store'):
        LabeledImages(folder, EvalTransform(32), class_map=tmp_path / 'map.txt')


@pytest.fixture
def flat(folder, tmp_path):
    """The same images, all in one folder."""
    for path in sorted(folder.rglob('*.png')):
        path.rename(folder / f'{path.parent.name}{path.name}')
    for emptied in ('cat', 'dog'):
        (folder / emptied).rmdir()
    return folder


def test_a_flat_folder_has_maps_and_no_labels(flat, tmp_path):
    store_of(flat, tmp_path / 'store', ['ant', 'bee', 'cow'])
    images = LabeledImages(flat, EvalTransform(32), tmp_path / 'store')
    assert images[0]['label'] == -1 and images[0]['scores'].shape == (2, 4, 4)
    assert '6 of its 6 images have no class, such as cat0.png' in images.unlabelled
    assert images.num_classes == 3 and images.class_names == ['ant', 'bee', 'cow']


def test_a_class_map_for_a_flat_folder_numbers_its_classes(flat, tmp_path):
    store_of(flat, tmp_path / 'store', ['ant', 'bee', 'cow'])
    (tmp_path / 'map.txt').write_text('cow 0\nbee 4\n')
    images = LabeledImages(flat, EvalTransform(32), tmp_path / 'store', class_map=tmp_path / 'map.txt')
    assert images.num_classes == 5 and set(images[0]['classes'].unique().tolist()) <= {0, 4}


def test_a_tar_joins_the_store_of_the_folder_it_was_made_of(folder, tmp_path):
    store_of(folder, tmp_path / 'store', ['cat', 'dog'])
    with tarfile.open(tmp_path / 'images.tar', 'w') as archive:
        archive.add(folder, '.')
    ours, theirs = (
        LabeledImages(root, EvalTransform(32), tmp_path / 'store') for root in (tmp_path / 'images.tar', folder)
    )
    for index in range(6):
        for name, value in theirs[index].items():
            np.testing.assert_array_equal(ours[index][name], value)


def test_a_split_is_that_of_the_shards(folder, tmp_path):
    for split, name in (('train', 'cat'), ('val', 'dog')):
        with tarfile.open(tmp_path / f'{split}-0.tar', 'w') as archive:
            archive.add(folder / name, '.')
    source = f'wds/{tmp_path}'
    images = LabeledImages(source, EvalTransform(32, crop_pct=1.0), split='validation')
    assert [images.key(index) for index in range(len(images))] == ['val-0/0.png', 'val-0/1.png', 'val-0/2.png']
    assert LabeledImages(source, EvalTransform(32)).key(0) == 'train-0/0.png'


class TestLabelsAsAModelNumbersThem:
    def test_names_decide(self, folder):
        images = LabeledImages(folder, EvalTransform(32))
        images.renumber(images.numbered_as(['ant', 'dog', 'cat'], 3, 'the model'))
        assert labels(images) == {key: {'cat': 2, 'dog': 1}[key[:3]] for key in keys(folder)}
        assert images.class_names == ['ant', 'dog', 'cat'] and images.unlabelled is None

    def test_equal_counts_decide_where_names_are_not_known(self, folder):
        images = LabeledImages(folder, EvalTransform(32))
        images.renumber(images.numbered_as(None, 2, 'the model'))
        assert images.unlabelled is None and images[5]['label'] == 1 and images.class_names == ['cat', 'dog']

    def test_numbering_twice_changes_nothing(self, folder):
        images = LabeledImages(folder, EvalTransform(32))
        for _ in range(2):
            images.renumber(images.numbered_as(['ant', 'dog', 'cat'], 3, 'the model'))
        assert images[5]['label'] == 1

    @pytest.mark.parametrize('names', [None, [f'n{number:08d}' for number in range(1000)]])
    def test_folders_named_by_numbers_are_the_classes_of_these_numbers(self, folder, tmp_path, names):
        """As those of ImageNet-V2: neither names nor their alphabetical order say what they are."""
        for name, number in (('cat', '107'), ('dog', '20')):
            shutil.copytree(folder / name, tmp_path / 'numbered' / number)
        images = LabeledImages(tmp_path / 'numbered', EvalTransform(32))
        for _ in range(2):
            images.renumber(images.numbered_as(names, 1000, 'the model'))
        assert {images.key(index).split('/')[0]: images[index]['label'] for index in range(6)} == {'20': 20, '107': 107}
        assert images.unlabelled is None and images.num_classes == 1000 and images.class_names == (names or [])

    @pytest.mark.parametrize(('names', 'count'), [(None, 3), (['cat', 'cow'], 2)])
    def test_otherwise_there_are_no_labels(self, folder, names, count):
        images = LabeledImages(folder, EvalTransform(32))
        images.renumber(images.numbered_as(names, count, 'the model'))
        assert images[5]['label'] == -1
        assert images.unlabelled == f'its 2 classes are not among the {count} of the model, by name or by count'


def test_a_store_of_named_classes_takes_folders_of_their_numbers(folder, tmp_path):
    for name, number in (('cat', '1'), ('dog', '0')):
        shutil.copytree(folder / name, tmp_path / 'numbered' / number)
    root = tmp_path / 'numbered'
    write_store(tmp_path / 'store', keys(root), num_classes=2, k=2, grid=4, class_names=['ant', 'bee'])
    images = LabeledImages(root, EvalTransform(32), tmp_path / 'store')
    assert images.class_names == ['ant', 'bee'] and images.unlabelled is None
    assert {images.key(index).split('/')[0]: images[index]['label'] for index in range(6)} == {'0': 0, '1': 1}


@pytest.mark.parametrize('names', [('1', '2'), ('01', '02')])
def test_folders_that_count_from_one_are_no_classes_and_the_remedy_is_said(folder, names):
    for old, new in zip(('cat', 'dog'), names, strict=True):
        (folder / old).rename(folder / new)
    images = LabeledImages(folder, EvalTransform(32))
    images.renumber(images.numbered_as(['ant', 'bee', 'cow'], 3, 'the model'))
    assert images.unlabelled == (
        'its 2 classes are not among the 3 of the model, by name or by count (its folders count from 1: name them '
        'after the classes, or count from 0)'
    )
    assert set(labels(images).values()) == {-1}


def test_folders_of_numbers_without_a_0_are_taken_as_they_are_and_named(folder, caplog):
    (folder / 'cat').rename(folder / '2')
    (folder / 'dog').rename(folder / '4')
    images = LabeledImages(folder, EvalTransform(32))
    images.renumber(images.numbered_as(list('abcde'), 5, 'the model'))
    assert set(labels(images).items()) == {(f'{name}/{index}.png', name) for name in (2, 4) for index in range(3)}
    assert 'images: folders such as 2 are read as class numbers from 0.' in caplog.text
