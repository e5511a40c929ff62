"""What a person gets to see of their own images and masks before training."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

import mmseg_ext  # noqa: F401  (registers the names)
from mmseg_ext.checks.data_report import as_markdown, data_report, write_data_report
from tests.segmentation_layouts import own_data
from tokenlabel.errors import UserError

CLASSES = ('wall', 'floor', 'door')
# A folder with `camvid/images` and `camvid/masks`, as packaged for SegNet.
DATA = os.environ.get('TOKENLABEL_TEST_DATA')


def config(root: Path, classes=CLASSES, **more) -> Config:
    loaders = {
        f'{split}_dataloader': dict(
            dataset=dict(
                type='ImageMaskFolders',
                data_root=str(root),
                data_prefix=dict(img_path=f'images/{split}', seg_map_path=f'masks/{split}'),
                classes=classes,
                **more,
            )
        )
        for split in ('train', 'val')
    }
    return Config(dict(model=dict(num_classes=None), **loaders))


def write(root: Path, split: str, name: str, mask, colour: int = 0) -> None:
    for kind in ('images', 'masks'):
        (root / kind / split).mkdir(parents=True, exist_ok=True)
    mask = np.array(mask, np.uint8)
    Image.new('RGB', mask.shape[1::-1], (colour,) * 3).save(root / 'images' / split / f'{name}.png')
    Image.fromarray(mask).save(root / 'masks' / split / f'{name}.png')


@pytest.fixture
def data(tmp_path) -> Path:
    for number in range(4):
        write(tmp_path, 'train', f'{number}', [[0, 0, 1, 255]], number)
    write(tmp_path, 'train', 'door', [[0, 1, 2, 2]], 9)
    write(tmp_path, 'val', 'a', [[0, 1]], 20)
    return tmp_path


def test_pixels_and_images_of_each_class_are_counted(data):
    train, val = data_report(config(data))
    assert (train.num_images, val.num_images) == (5, 1)
    assert train.pixels.tolist() == [9, 5, 2, 4] and train.images.tolist() == [5, 5, 1]
    assert train.sizes == {(4, 1): 5} and train.ignored == {'255': 4}
    text = as_markdown([train])
    assert '| wall | #f25555 | 45.00 | 5 |' in text and '| ignored (255) | | 20.00 | |' in text


def test_what_to_look_at_is_said(data):
    train, val = data_report(config(data))
    assert train.remarks == ['Classes in fewer than 3 images, too few to learn from: door.']
    assert val.remarks == ['Classes in no mask: door.']


def test_images_that_are_also_trained_on_are_named(data):
    shutil.copy(data / 'images/train/2.png', data / 'images/val/copy.png')
    shutil.copy(data / 'masks/train/2.png', data / 'masks/val/copy.png')
    assert '1 images are also in the training split, such as copy.png' in data_report(config(data))[1].remarks[1]


def test_masks_of_one_class_and_ignored_pixels_are_said(tmp_path):
    write(tmp_path, 'train', 'a', [[0, 255, 255]])
    assert data_report(config(tmp_path))[0].remarks == [
        'All masks contain only wall.',
        'Classes in no mask: floor, door.',
        'Classes in fewer than 3 images, too few to learn from: wall.',
        '67 % of the pixels are ignored.',
    ]


def test_masks_that_cannot_be_read_do_not_end_the_report(data):
    write(data, 'train', 'wrong', [[7]])
    Image.new('L', (2, 2)).save(data / 'masks/train/0.png')
    (data / 'masks/train/1.png').write_bytes(b'')
    remarks = data_report(config(data))[0].remarks
    for words, remark in zip(('0.png is 2x2', '1.png cannot', 'id 7'), remarks[:3], strict=True):
        assert words in remark


def test_masks_in_colour_are_counted_and_drawn_in_their_colours(tmp_path):
    write(tmp_path, 'train', 'a', [[(64, 0, 128), (0, 0, 0), (1, 2, 3)]])
    (report,) = write_data_report(config(tmp_path, dict(car='#400080', road=0), ignore='#010203'), tmp_path / 'out')
    assert report.pixels.tolist() == [1, 1, 1] and report.ignored == {'#010203': 1}
    assert '| car | #400080 | 33.33 | 1 |' in (tmp_path / 'out/data.md').read_text()
    assert Image.open(tmp_path / 'out/data.png').size > (100, 100)


def test_folders_that_are_not_here_are_said(tmp_path):
    with pytest.raises(UserError, match='None of the data folders in the config exists'):
        data_report(config(tmp_path))


def test_training_on_folders_of_your_own_leaves_the_report(run_here, tmp_path):
    own_data(tmp_path)
    out = tmp_path / 'run'
    roots = [
        f"{loader}_dataloader.dataset.data_prefix={{'img_path': '{tmp_path}/images/{split}', 'seg_map_path': "
        f"'{tmp_path}/masks/{split}'}}"
        for loader, split in (('train', 'train'), ('val', 'val'), ('test', 'val'))
    ]
    names = [f"{split}_dataloader.dataset.classes=['wall', 'floor', 'door']" for split in ('train', 'val', 'test')]
    done = run_here('inspect', 'custom', '--out', out, '--cfg-options', *roots, *names)
    assert done.returncode == 0, done.stderr
    assert '| floor |' in done.stdout and (out / 'data.md').is_file() and (out / 'data.png').is_file()


@pytest.mark.skipif(DATA is None, reason='TOKENLABEL_TEST_DATA names no folder')
def test_camvid_is_described():
    names = ['sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign', 'fence', 'car', 'pedestrian', 'bicyclist']
    train, val = data_report(config(Path(DATA, 'camvid'), names, ignore=[11]))
    assert (train.num_images, val.num_images) == (367, 101)
    assert train.sizes == {(480, 360): 367} and list(train.ignored) == ['11']
    assert train.remarks == val.remarks == []
