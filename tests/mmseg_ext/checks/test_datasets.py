"""Folders and files that a segmentation run needs are looked at before it starts."""

from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmseg.registry import TRANSFORMS
from PIL import Image

import mmseg_ext  # noqa: F401  (registers the names)
from mmseg_ext.checks.datasets import check_datasets
from mmseg_ext.datasets.load_label_map import read_label_map
from tests.segmentation_layouts import LAYOUTS, write_pair
from tokenlabel.errors import UserError

PREFIX = dict(img_path='images', seg_map_path='annotations')


def config(root: Path, model: dict | None = None, **changes) -> Config:
    dataset = dict(type='ADE20KDataset', data_root=str(root), data_prefix=PREFIX, pipeline=[]) | changes
    return Config(dict(model=model, train_dataloader=dict(dataset=dataset), val_dataloader=None))


def make(root: Path, *files: str) -> None:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def pair(root: Path, name: str = 'a', ids=(0, 1, 150), **changes) -> None:
    write_pair(root / f'images/{name}.jpg', root / f'annotations/{name}.png', ids, 0, **{'size': (20, 30)} | changes)


def refused(message: str, *args, **kwargs) -> None:
    with pytest.raises(UserError, match=message):
        check_datasets(config(*args, **kwargs))


def test_complete_folders_pass(tmp_path):
    pair(tmp_path)
    check_datasets(config(tmp_path, dict(decode_head=dict(num_classes=150))))


def test_a_missing_folder_is_named_with_the_option_that_moves_it(tmp_path):
    refused(r'images is missing: .* train_dataloader\.dataset\.data_root', tmp_path)


def test_an_empty_folder_is_named(tmp_path):
    make(tmp_path, 'images/a.jpg')
    (tmp_path / 'annotations').mkdir()
    refused('annotations is empty', tmp_path)


def test_a_folder_without_images_is_named(tmp_path):
    make(tmp_path, 'images/readme.txt', 'annotations/a.png')
    refused(r'images holds no images: there is no \.jpg file in it', tmp_path)


def test_images_without_annotation_are_counted_and_named(tmp_path):
    make(tmp_path, 'images/a.jpg', 'images/b.jpg', 'annotations/a.png')
    refused(r'1 of 2 images .* have no annotation, such as .*b\.jpg', tmp_path)


def test_annotations_of_another_size_and_with_other_ids_are_found(tmp_path):
    pair(tmp_path, ids=(151,))
    refused(r'a\.png holds id 151 in 600 pixels', tmp_path)
    pair(tmp_path)
    Image.fromarray(np.zeros((30, 20), np.uint8)).save(tmp_path / 'annotations/a.png')
    refused(r'a\.png is 20x30 and its image 30x20', tmp_path)


def test_a_photograph_that_is_shown_upright_has_an_upright_annotation(tmp_path):
    pair(tmp_path, size=(30, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / 'images/a.jpg', exif=exif)
    check_datasets(config(tmp_path))


def test_a_broken_image_is_named(tmp_path):
    pair(tmp_path)
    (tmp_path / 'images/a.jpg').write_text('no image')
    refused(r'a\.jpg cannot be read as an image', tmp_path)


def test_only_some_annotations_of_a_large_data_set_are_read(tmp_path, monkeypatch):
    for number in range(7):
        pair(tmp_path, f'{number}')
    read = []

    def reading(path: str, *args, **kwargs) -> np.ndarray:
        read.append(Path(path).stem)
        return read_label_map(path, *args, **kwargs)

    monkeypatch.setattr('mmseg_ext.checks.datasets.SAMPLES', 3)
    monkeypatch.setattr('mmseg_ext.checks.datasets.read_label_map', reading)
    check_datasets(config(tmp_path))
    assert read == ['0', '3', '6']


def test_ids_of_files_count_the_classes_of_the_data_set_and_not_the_chosen_ones(tmp_path):
    pair(tmp_path, ids=(1, 3, 150), size=(96, 96))
    check_datasets(config(tmp_path, metainfo=dict(classes=('wall', 'sky'))))


@pytest.mark.parametrize('head', [dict(num_classes=19), [dict(num_classes=150), dict(num_classes=19)]])
def test_heads_of_another_number_of_classes_are_refused(tmp_path, head):
    pair(tmp_path)
    refused(r'auxiliary_head\.num_classes is 19 and ADE20KDataset has 150', tmp_path, dict(auxiliary_head=head))
    module = dict(type='SegTTAModel', module=dict(auxiliary_head=head))
    refused(r'auxiliary_head\.num_classes is 19', tmp_path, module)


def test_a_head_that_tells_edges_has_its_own_classes(tmp_path):
    pair(tmp_path)
    check_datasets(config(tmp_path, dict(auxiliary_head=dict(type='STDCHead', num_classes=2))))


def test_ids_that_someone_s_own_transform_makes_or_that_a_head_ignores_are_left_to_them(tmp_path, monkeypatch):
    pair(tmp_path, ids=(1, 2, 200), size=(96, 96))
    monkeypatch.setitem(TRANSFORMS._module_dict, 'Mine', type('Mine', (), {}))
    loading = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
    refused('holds id 200', tmp_path, pipeline=loading)
    check_datasets(config(tmp_path, pipeline=[*loading, dict(type='Mine')]))
    check_datasets(config(tmp_path, pipeline=[dict(type='LoadImageFromNpyFile')]))
    check_datasets(config(tmp_path, dict(decode_head=dict(ignore_index=199)), pipeline=loading))


def test_images_without_any_annotation_pass(tmp_path):
    pair(tmp_path)
    kind = dict(type='ImageMaskFolders', classes=['sky'], data_prefix=dict(img_path='images'))
    check_datasets(config(tmp_path, **kind))


def test_lists_of_files_and_wrapped_data_sets_are_looked_into(tmp_path):
    LAYOUTS['voc12_aug'](tmp_path)
    prefix = dict(img_path='JPEGImages', seg_map_path='SegmentationClassAug')
    part = dict(type='PascalVOCDataset', data_root=str(tmp_path), data_prefix=prefix, pipeline=[])
    part['ann_file'] = 'ImageSets/Segmentation/aug.txt'
    repeated = dict(type='RepeatDataset', times=2, dataset=part)
    whole = Config(dict(train_dataloader=dict(dataset=dict(type='ConcatDataset', datasets=[part, repeated]))))
    check_datasets(whole, ('train',))
    next(tmp_path.glob('SegmentationClassAug/*.png')).unlink()
    with pytest.raises(UserError, match=r'1 of 2 images .* have no annotation'):
        check_datasets(whole, ('train',))
    (tmp_path / part['ann_file']).unlink()
    with pytest.raises(UserError, match=r'The list of images .*aug\.txt is missing'):
        check_datasets(whole, ('train',))


def test_other_kinds_of_data_sets_are_left_alone(tmp_path):
    check_datasets(config(tmp_path, type='LabeledImages'))
    check_datasets(config(tmp_path, data_root='s3://bucket/ade'))
    check_datasets(config(tmp_path, backend_args=dict(backend='petrel')))


def test_a_dry_run_looks_at_the_data_that_are_here_alone(tmp_path):
    pair(tmp_path, ids=(0, 1, 151))
    check_datasets(config(tmp_path / 'elsewhere'), only_here=True)
    check_datasets(config(tmp_path, data_prefix=PREFIX | dict(seg_map_path='elsewhere')), only_here=True)
    with pytest.raises(UserError, match='holds id 151'):
        check_datasets(config(tmp_path), only_here=True)
