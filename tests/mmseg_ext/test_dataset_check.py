"""Folders that a segmentation run needs are looked at before it starts."""

from pathlib import Path

import pytest
from mmengine.config import Config

import mmseg_ext  # noqa: F401  (registers the names)
from mmseg_ext.dataset_check import check_datasets
from tokenlabel.errors import UserError


def config(root: Path, **changes) -> Config:
    prefix = dict(img_path='images', seg_map_path='annotations')
    dataset = dict(type='ADE20KDataset', data_root=str(root), data_prefix=prefix, pipeline=[]) | changes
    return Config(dict(train_dataloader=dict(dataset=dataset), val_dataloader=None))


def make(root: Path, *files: str) -> None:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_complete_folders_pass(tmp_path):
    make(tmp_path, 'images/a.jpg', 'annotations/a.png')
    check_datasets(config(tmp_path))


def test_a_missing_folder_is_named_with_the_option_that_moves_it(tmp_path):
    with pytest.raises(UserError, match=r'images is missing: .* train_dataloader\.dataset\.data_root'):
        check_datasets(config(tmp_path))


def test_an_empty_folder_is_named(tmp_path):
    make(tmp_path, 'images/a.jpg')
    (tmp_path / 'annotations').mkdir()
    with pytest.raises(UserError, match='annotations is empty'):
        check_datasets(config(tmp_path))


def test_a_folder_without_images_is_named(tmp_path):
    make(tmp_path, 'images/readme.txt', 'annotations/a.png')
    with pytest.raises(UserError, match=r'images holds no \.jpg images'):
        check_datasets(config(tmp_path))


def test_images_without_annotation_are_counted_and_named(tmp_path):
    make(tmp_path, 'images/a.jpg', 'images/b.jpg', 'annotations/a.png')
    with pytest.raises(UserError, match=r'1 of 2 images .* such as .*b\.jpg'):
        check_datasets(config(tmp_path))


def test_data_sets_with_a_list_of_files_are_left_to_mmsegmentation(tmp_path):
    check_datasets(config(tmp_path, ann_file='list.txt'))
