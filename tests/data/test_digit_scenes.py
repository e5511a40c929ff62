"""The embedded dataset: what a scene holds and what lies on disk."""

import colorsys
import json

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from tokenlabel.data import digit_scenes
from tokenlabel.data.digit_scenes import (
    BACKGROUND,
    CLASSES,
    FIRST_DIGIT,
    PALETTE,
    SEGMENTATION_CLASSES,
    digit_scene,
    write_digit_scenes,
)
from tokenlabel.errors import UserError

SMALL = dict(num_train=20, num_val=10, num_segmentation=6, num_segmentation_val=4, size=32, seed=3)
SCENES = [('train', index) for index in range(30)] + [('val', index) for index in range(30)]


def digit_areas(annotation: np.ndarray) -> np.ndarray:
    return np.bincount(annotation.ravel(), minlength=FIRST_DIGIT + 10)[FIRST_DIGIT:]


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    return write_digit_scenes(tmp_path_factory.mktemp('data') / 'scenes', **SMALL)


@pytest.mark.parametrize(('split', 'index'), SCENES[::10])
def test_a_scene_depends_on_its_arguments_alone(split, index):
    first, again = digit_scene(split, index, seed=5), digit_scene(split, index, seed=5)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.annotation, again.annotation)
    assert not np.array_equal(first.image, digit_scene(split, index, seed=6).image)


@pytest.mark.parametrize('size', [32, 64, 97])
def test_a_scene_has_the_size_asked_for(size):
    scene = digit_scene('train', 0, size)
    assert (scene.image.shape, scene.image.dtype) == ((size, size, 3), np.uint8)
    assert (scene.annotation.shape, scene.annotation.dtype) == ((size, size), np.uint8)


def test_the_label_is_the_sign_with_the_largest_visible_area():
    for split, index in SCENES:
        scene = digit_scene(split, index)
        areas = digit_areas(scene.annotation)
        assert areas.argmax() == scene.label
        assert areas[scene.label] > np.delete(areas, scene.label).max()


def test_ten_consecutive_scenes_show_every_class_once():
    assert sorted(digit_scene('val', index).label for index in range(40, 50)) == list(range(10))


def test_scenes_hold_one_to_three_signs():
    counts = [np.count_nonzero(digit_areas(digit_scene('train', index).annotation)) for index in range(200)]
    assert set(counts) == {1, 2, 3}


def test_the_hue_of_a_sign_hints_at_its_class():
    guesses = []
    for index in range(200):
        scene = digit_scene('train', index)
        board = scene.image[scene.annotation == FIRST_DIGIT + scene.label]
        board = board[board.max(axis=-1) > 180].mean(axis=0) / 255  # without the ink
        guesses.append(round(colorsys.rgb_to_hsv(*board)[0] * 10) % 10 == scene.label)
    assert 0.7 < np.mean(guesses) < 0.97


def test_signs_are_brighter_than_the_background():
    for split, index in SCENES:
        scene = digit_scene(split, index)
        brightness = scene.image.max(axis=-1)
        assert (
            brightness[scene.annotation >= FIRST_DIGIT].mean() > brightness[scene.annotation == BACKGROUND].mean() + 50
        )


def test_the_splits_share_no_handwriting():
    train, val = (np.concatenate(digit_scenes._handwriting(split)) for split in ('train', 'val'))
    assert len(train) + len(val) == 1797
    assert not {sample.tobytes() for sample in train} & {sample.tobytes() for sample in val}


def test_the_splits_share_no_photo_region():
    for train, val in zip(digit_scenes._photo_halves('train'), digit_scenes._photo_halves('val'), strict=True):
        assert train.size == val.size == (320, 427)
        assert train.tobytes() != val.tobytes()


def test_the_classification_folder_reads_as_imagenet_in_class_order(written):
    for split, number in (('train', 20), ('val', 10)):
        folder = ImageFolder(written / 'imagenet' / split)
        assert tuple(folder.classes) == CLASSES
        assert len(folder) == number
        for index, (path, label) in enumerate(sorted(folder.samples, key=lambda sample: sample[0][-10:])):
            assert label == digit_scene(split, index, SMALL['size'], SMALL['seed']).label
            assert Image.open(path).size == (32, 32)


def test_the_segmentation_folder_holds_the_first_scenes_in_the_layout_of_ade20k(written):
    for split, ade_split, number in (('train', 'training', 6), ('val', 'validation', 4)):
        names = [f'{split}_{index:06d}' for index in range(number)]
        images = sorted((written / 'ade/images' / ade_split).iterdir())
        annotations = sorted((written / 'ade/annotations' / ade_split).iterdir())
        assert [path.name for path in images] == [f'{name}.jpg' for name in names]
        assert [path.name for path in annotations] == [f'{name}.png' for name in names]
        for index, (image, annotation) in enumerate(zip(images, annotations, strict=True)):
            scene = digit_scene(split, index, SMALL['size'], SMALL['seed'])
            assert np.array_equal(np.asarray(Image.open(annotation)), scene.annotation)
            assert np.abs(np.asarray(Image.open(image), int) - scene.image).mean() < 12


def test_a_finished_folder_is_reused(written):
    before = (written / 'imagenet/train/digit_0/train_000000.jpg').stat().st_mtime_ns
    assert write_digit_scenes(written, **SMALL) == written
    assert (written / 'imagenet/train/digit_0/train_000000.jpg').stat().st_mtime_ns == before


def test_a_folder_of_other_scenes_is_refused(written):
    with pytest.raises(UserError, match='seed 3 instead of 4'):
        write_digit_scenes(written, **SMALL | {'seed': 4})


def test_a_folder_of_something_else_is_refused_and_kept(tmp_path):
    (tmp_path / 'thesis.tex').touch()
    with pytest.raises(UserError, match='holds no digit scenes'):
        write_digit_scenes(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ['thesis.tex']


@pytest.mark.parametrize(
    ('change', 'complaint'),
    [
        ({'num_train': 9}, 'all 10 classes'),
        ({'num_segmentation': 21}, 'cannot be taken from'),
        ({'num_segmentation_val': 0}, 'cannot be taken from'),
        ({'size': 16}, 'at least 32'),
    ],
)
def test_impossible_numbers_are_refused_before_anything_is_written(tmp_path, change, complaint):
    with pytest.raises(UserError, match=complaint):
        write_digit_scenes(tmp_path / 'scenes', **SMALL | change)
    assert not any(tmp_path.iterdir())


def test_an_interrupted_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupted(split, index, size, seed):
        if index == 5:
            raise KeyboardInterrupt
        return digit_scene(split, index, size, seed)

    monkeypatch.setattr(digit_scenes, 'digit_scene', interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_digit_scenes(tmp_path / 'scenes', **SMALL)
    assert not any(tmp_path.iterdir())


def test_the_slower_of_two_writers_keeps_the_scenes_of_the_faster(tmp_path, monkeypatch):
    root, write_split = tmp_path / 'scenes', digit_scenes._write_split

    def overtaken(unfinished, split, *arguments):
        write_split(unfinished, split, *arguments)
        if split == 'val':
            monkeypatch.undo()
            write_digit_scenes(root, **SMALL)

    monkeypatch.setattr(digit_scenes, '_write_split', overtaken)
    write_digit_scenes(root, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ['scenes']
    assert json.loads((root / 'digit_scenes.json').read_text())['seed'] == 3


def test_mmsegmentation_reads_the_segmentation_folder_by_registry_name(written):
    pytest.importorskip('mmseg')
    from mmengine.registry import DefaultScope
    from mmseg.registry import DATASETS

    import mmseg_ext.datasets  # noqa: F401

    with DefaultScope.overwrite_default_scope('mmseg'):
        dataset = DATASETS.build(
            dict(
                type='DigitScenes',
                data_root=str(written / 'ade'),
                data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
                pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')],
            )
        )
    assert len(dataset) == 4
    assert dataset.metainfo['classes'] == SEGMENTATION_CLASSES
    assert dataset.metainfo['palette'] == [list(colour) for colour in PALETTE]
    stored = digit_scene('val', 0, SMALL['size'], SMALL['seed']).annotation
    expected = np.where(stored == 0, 255, stored.astype(int) - 1)
    assert np.array_equal(dataset[0]['gt_seg_map'], expected)


def test_every_class_has_a_colour_of_its_own():
    assert len(set(PALETTE)) == len(SEGMENTATION_CLASSES) == 11
