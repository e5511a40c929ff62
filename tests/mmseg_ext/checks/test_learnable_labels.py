"""Annotations from which nothing can be learned are refused before the run, with the remedy; good ones pass."""

import logging
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger
from PIL import Image

import mmseg_ext  # noqa: F401  (registers the names)
from mmseg_ext.checks.datasets import check_datasets
from tokenlabel.errors import UserError

NAMES = ('background', 'leaf', 'fruit')


def write(folder: Path, *masks: np.ndarray | list) -> None:
    """Images of noise, and a mask for each."""
    for name in ('images', 'masks'):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number, mask in enumerate(masks):
        mask = np.kron(np.array(mask), np.ones((4, 4))).astype(np.uint8)
        Image.fromarray(mask).save(folder / f'masks/{number:04d}.png')
        Image.new('RGB', mask.shape[::-1]).save(folder / f'images/{number:04d}.jpg')


def config(folder: Path, classes=NAMES[:2], split: str = 'train', **changes) -> Config:
    dataset = dict(
        type='ImageMaskFolders',
        data_root=str(folder),
        data_prefix=dict(img_path='images', seg_map_path='masks'),
        classes=classes,
        pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadLabelMap')],
    )
    return Config({f'{split}_dataloader': dict(dataset=dataset | changes)})


def refused(message: str, *args, split: str = 'train', **kwargs) -> None:
    with pytest.raises(UserError, match=message):
        check_datasets(config(*args, split=split, **kwargs), (split,))


@pytest.fixture
def warnings(caplog):
    """Checks data sets and returns what was warned of."""

    def check(*args, split: str = 'train', **kwargs) -> list[str]:
        logger = MMLogger.get_current_instance()
        logger.addHandler(caplog.handler)
        try:
            with caplog.at_level(logging.WARNING):
                check_datasets(config(*args, split=split, **kwargs), (split,))
        finally:
            logger.removeHandler(caplog.handler)
        return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]

    return check


@pytest.mark.parametrize('split', ['train', 'val', 'test'])
def test_masks_of_0_and_255_are_refused_with_the_remedy(tmp_path, split):
    write(tmp_path, [[0, 255], [0, 0]], [[0, 0], [255, 0]])
    refused(
        r'the 2 masks in .*masks, which hold the numbers 0 and 255 alone: of the 2 classes background alone occurs; '
        r'255 is ignored: where it stands for leaf, write 1 in its place, or name the '
        r'numbers: classes=dict\(background=0, leaf=255\)',
        tmp_path,
        split=split,
    )


def test_the_remedy_makes_masks_of_0_and_255_good(tmp_path, warnings):
    write(tmp_path, [[0, 255], [0, 0]])
    assert warnings(tmp_path, classes=dict(background=0, leaf=255)) == []


@pytest.mark.parametrize('split', ['train', 'val', 'test'])
def test_masks_of_255_alone_are_refused(tmp_path, split):
    write(tmp_path, [[255, 255]])
    refused(
        'the only mask in .*, which holds the number 255 alone: of the 2 classes none occurs', tmp_path, split=split
    )


def test_training_masks_of_one_class_are_refused_however_many_there_are(tmp_path):
    write(tmp_path, *[[[0, 0]]] * 30)
    refused('the 30 masks in .* hold the number 0 alone: of the 2 classes background alone occurs; write', tmp_path)


def test_one_mask_with_a_second_class_is_found_among_many(tmp_path, warnings):
    masks = [[[0, 0]]] * 45
    masks[31] = [[0, 1]]
    write(tmp_path, *masks)
    assert warnings(tmp_path) == []


def test_evaluation_masks_of_one_class_are_warned_of(tmp_path, warnings):
    write(tmp_path, [[0, 0]])
    [said] = warnings(tmp_path, split='val')
    assert said.startswith('Only background occurs in the only mask in')


def test_training_on_next_to_nothing_is_refused(tmp_path):
    mask = np.full((20, 20), 255)
    mask[0, :2] = 0, 1
    write(tmp_path, mask)
    refused(r'99\.5 % of the pixels in the only mask in .* are ignored', tmp_path)


def test_a_single_class_wants_a_background(tmp_path):
    write(tmp_path, [[0, 255]])
    refused(r"name the background as a class too, such as classes=\['background', \.\.\.\]", tmp_path, ['leaf'])


def test_classes_that_never_occur_are_named(tmp_path, warnings):
    write(tmp_path, [[0, 1]], [[1, 1]])
    [said] = warnings(tmp_path, NAMES)
    assert said.startswith('fruit of 3 classes cannot be learned: not in the 2 masks in')


def test_255_that_may_stand_for_the_missing_class_is_named(tmp_path, warnings):
    write(tmp_path, [[0, 1], [255, 0]])
    [said] = warnings(tmp_path, NAMES)
    assert '255 is ignored: where it stands for fruit, write 2 in its place, or name the numbers: classes=dict(' in said


def test_reduce_zero_label_on_masks_that_start_at_0_is_named(tmp_path, warnings):
    write(tmp_path, [[0, 1], [2, 0]])
    [said] = warnings(tmp_path, NAMES, reduce_zero_label=True)
    assert 'fruit of 3 classes' in said
    assert 'its numbers are 0 to 2, of which reduce_zero_label=True ignores 0' in said


def test_reduce_zero_label_on_masks_of_two_classes_is_refused(tmp_path):
    write(tmp_path, [[0, 1], [1, 0]])
    refused('reduce_zero_label=True ignores 0 and counts the classes from 1', tmp_path, reduce_zero_label=True)


def test_masks_that_count_from_1_are_refused_with_both_remedies(tmp_path):
    write(tmp_path, [[1, 2], [3, 1]])
    refused(
        r'holds id 3 in .* if 3 marks unlabelled pixels, set ignore=\[3\] .*; if the classes are 1 to 3, '
        'reduce_zero_label=True',
        tmp_path,
        NAMES,
    )


def test_rare_classes_of_many_are_rightly_absent_from_a_sample(tmp_path, warnings):
    write(tmp_path, *[[[0, 1]]] * 25)
    assert warnings(tmp_path, [f'class {number}' for number in range(30)]) == []


def test_good_masks_pass_without_a_word(tmp_path, warnings):
    write(tmp_path, [[0, 1], [2, 255]], [[0, 0], [0, 0]])
    assert warnings(tmp_path, NAMES) == []
    assert warnings(tmp_path, NAMES, split='val') == []


def test_of_joined_data_sets_the_whole_counts(tmp_path):
    write(tmp_path / 'a', [[0, 0]])
    write(tmp_path / 'b', [[1, 1]])
    parts = [config(tmp_path / name).train_dataloader.dataset for name in 'ab']
    check_datasets(Config(dict(train_dataloader=dict(dataset=dict(type='ConcatDataset', datasets=parts)))), ('train',))


def test_splits_that_number_their_classes_differently_are_refused(tmp_path):
    write(tmp_path, [[0, 1], [2, 0]])
    both = config(tmp_path, NAMES)
    both.merge_from_dict(config(tmp_path, ('background', 'fruit', 'leaf'), split='val').to_dict())
    with pytest.raises(UserError, match=r"class 1 is 'leaf' in the first and 'fruit' in the second"):
        check_datasets(both)
