"""MMSegmentation's own data sets find and read files as everything else does."""

import os

import mmengine
import mmengine.fileio
import pytest
from mmseg.registry import DATASETS

import mmseg_ext  # noqa: F401  (registers the backend)
from tests.mmseg_ext.datasets.test_image_mask_folders import build, make, pairs
from tokenlabel.data.readers import open_images
from tokenlabel.errors import UserError
from tokenlabel.files.folder_walk import IMAGE_SUFFIXES, find_files

IMAGES = ['2.jpg', '10.JPG', 'b/1.jpg', 'city/1.jpg']


@pytest.fixture
def tree(tmp_path):
    """Images and masks with links, hidden names and what systems leave."""
    make(tmp_path, *(f'images/{name}' for name in IMAGES[:3]), 'cities/1.jpg')
    make(tmp_path, *(f'masks/{name.rpartition(".")[0]}.png' for name in IMAGES))
    make(
        tmp_path, 'images/._2.jpg', 'images/.ipynb_checkpoints/a.jpg', 'images/@eaDir/2.jpg/THUMB.jpg', 'masks/._2.png'
    )
    (tmp_path / 'images/city').symlink_to('../cities')
    (tmp_path / 'images/b/loop').symlink_to('..')
    (tmp_path / 'images/gone.jpg').symlink_to('nowhere')
    os.mkfifo(tmp_path / 'images/pipe.jpg')
    return tmp_path


def test_the_same_tree_is_the_same_list_for_all(tree):
    prefix = dict(img_path='images', seg_map_path='masks')
    ade = DATASETS.build(dict(type='ADE20KDataset', data_root=str(tree), data_prefix=prefix, pipeline=[]))
    own = [image.removeprefix('images/') for image, _ in pairs(build(tree), tree)]
    assert (
        own == open_images(tree / 'images').filenames() == find_files(tree / 'images', IMAGE_SUFFIXES).names == IMAGES
    )
    assert {image.removeprefix('images/') for image, _ in pairs(ade, tree)} == set(IMAGES)


def test_a_folder_that_cannot_be_read_is_one_sentence(tree, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith('/b'):
            raise PermissionError(13, 'Permission denied', str(path))
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', refuse)
    with pytest.raises(UserError, match=r'images/b cannot be read \(permission denied\)'):
        list(mmengine.fileio.list_dir_or_file(str(tree / 'images'), list_dir=False, suffix='.jpg', recursive=True))


def test_a_pipe_is_not_waited_for(tree):
    with pytest.raises(OSError, match='not a regular file'):
        mmengine.fileio.get(str(tree / 'images/pipe.jpg'))


def test_lists_are_read_as_editors_write_them(tmp_path):
    (tmp_path / 'val.txt').write_bytes(b'\xef\xbb\xbfa\r\nb \r\ncaf\xe9\r\n\r\n\r\n')
    assert [line.strip() for line in mmengine.list_from_file(str(tmp_path / 'val.txt'))] == ['a', 'b', 'caf\udce9']


def test_what_is_written_can_be_read(tmp_path):
    mmengine.fileio.put_text('a\nb\n', str(tmp_path / 'x.txt'))
    assert mmengine.list_from_file(str(tmp_path / 'x.txt')) == ['a', 'b']
    assert set(mmengine.fileio.list_dir_or_file(str(tmp_path))) == {'x.txt'}
