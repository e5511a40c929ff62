"""Annotations that are right are read as MMSegmentation reads them; others are refused by name."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from mmseg_ext.datasets import LoadLabelMap
from mmseg_ext.datasets.load_label_map import read_label_map
from mmseg_ext.datasets.mask_classes import counted_classes
from tests.picture_files import png, turned
from tokenlabel.errors import UserError


def save(path: Path, ids, dtype=np.uint8, palette: bool = False) -> Path:
    picture = Image.fromarray(np.array(ids, dtype))
    if palette:
        picture.putpalette([number % 256 for number in range(1, 769)])
    picture.save(path)
    return path


@pytest.mark.parametrize('label_map', [None, {0: 1, 1: 255, 2: 0, 3: 2, 4: 255}], ids=['all', 'chosen'])
@pytest.mark.parametrize('reduce_zero_label', [False, True])
@pytest.mark.parametrize('palette', [False, True], ids=['grey', 'palette'])
def test_good_annotations_are_what_mmsegmentation_reads(tmp_path, palette, reduce_zero_label, label_map):
    path = save(tmp_path / 'a.png', [[0, 1, 2, 255], [3, 4, 4 + reduce_zero_label, 0]], palette=palette)
    results = dict(seg_map_path=str(path), reduce_zero_label=reduce_zero_label, label_map=label_map, ori_shape=(2, 4))
    expected = LoadAnnotations()(dict(results, seg_fields=[]))
    actual = LoadLabelMap(num_classes=5)(dict(results, seg_fields=[]))
    assert actual['seg_fields'] == ['gt_seg_map']
    assert actual['gt_seg_map'].dtype == expected['gt_seg_map'].dtype
    assert np.array_equal(actual['gt_seg_map'], expected['gt_seg_map'])


def test_sixteen_bits_are_read_in_full(tmp_path):
    path = save(tmp_path / 'a.png', [[0, 2], [255, 1]], np.uint16)
    assert read_label_map(path, counted_classes(3)).tolist() == [[0, 2], [255, 1]]
    path = save(tmp_path / 'b.png', [[0, 256], [256, 1]], np.uint16)  # whose low 8 bits are 0
    with pytest.raises(UserError, match=r'b\.png holds id 256 in 2 pixels'):
        read_label_map(path, counted_classes(3))


def test_one_bit_and_one_column_are_read(tmp_path):
    Image.fromarray(np.array([[True], [False]])).save(tmp_path / 'a.png')
    assert read_label_map(tmp_path / 'a.png', counted_classes(2)).tolist() == [[1], [0]]


@pytest.mark.parametrize(
    ('ids', 'reduce_zero_label', 'message'),
    [
        ([[0, 3], [3, 7]], False, r'id 3, 7 in 3 pixels, but the classes are 0 to 2 \(255 is ignored\): correct'),
        ([[0, 3], [3, 4]], True, r'id 4 in 1 pixels, but the classes are 1 to 3 \(0 and 255 are ignored\)'),
        ([[3, 4, 5, 6, 7, 8]], False, r'id 3, 4, 5, 6, 7\.\.\. in 6 pixels'),
    ],
)
def test_ids_that_are_no_class_are_named_and_counted(tmp_path, ids, reduce_zero_label, message):
    path = save(tmp_path / 'a.png', ids)
    with pytest.raises(UserError, match=rf'a\.png holds {message}'):
        read_label_map(path, counted_classes(3, reduce_zero_label))


def test_without_a_number_of_classes_any_id_passes(tmp_path):
    path = save(tmp_path / 'a.png', [[0, 254, 255]])
    assert read_label_map(path, counted_classes(None)).tolist() == [[0, 254, 255]]
    assert read_label_map(path, counted_classes(None, True)).tolist() == [[255, 253, 255]]


def test_another_size_than_the_image_is_refused(tmp_path):
    path = save(tmp_path / 'a.png', [[0, 1, 2]])
    with pytest.raises(UserError, match=r'a\.png is 3x1 and its image 1x3'):
        LoadLabelMap(3)(dict(seg_map_path=path, reduce_zero_label=False, seg_fields=[], ori_shape=(3, 1)))


def test_missing_broken_and_coloured_files_are_refused(tmp_path):
    with pytest.raises(UserError, match=r'a\.png is missing'):
        read_label_map(tmp_path / 'a.png', counted_classes(None))
    good = save(tmp_path / 'b.png', np.zeros((50, 50)))
    (tmp_path / 'c.png').write_bytes(good.read_bytes()[:60])
    (tmp_path / 'd.png').write_text('text')
    for name in ('c', 'd'):
        with pytest.raises(UserError, match=rf'{name}\.png cannot be read as a picture'), warnings.catch_warnings():
            read_label_map(tmp_path / f'{name}.png', counted_classes(None))
    save(tmp_path / 'e.png', np.zeros((2, 2, 3)))
    with pytest.raises(UserError, match=r'e\.png is a colour picture \(3 channels\)'):
        read_label_map(tmp_path / 'e.png', counted_classes(None))
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / 'f.tif')
    with pytest.raises(UserError, match=r'f\.tif holds float32 numbers'):
        read_label_map(tmp_path / 'f.tif', counted_classes(None))


@pytest.mark.parametrize('bits', [1, 2, 4])
def test_grey_of_few_bits_holds_the_ids_themselves(tmp_path, bits):
    ids = np.arange(8, dtype=np.uint8)[None] % 2**bits
    packed = np.packbits((ids[0][:, None] >> np.arange(bits)[::-1] & 1).ravel().astype(np.uint8)).tobytes()
    (tmp_path / 'a.png').write_bytes(png((8, 1), bits, 0, b'\0' + packed))
    np.testing.assert_array_equal(read_label_map(tmp_path / 'a.png', counted_classes(None)), ids)


def test_a_flipped_bit_behind_the_last_row_is_found(tmp_path):
    path = save(tmp_path / 'a.png', np.zeros((50, 50)))
    for place in range(-24, 0):  # the last checksum of the pixels, theirs, and the end
        damaged = bytearray(path.read_bytes())
        damaged[place] ^= 4
        (tmp_path / 'b.png').write_bytes(damaged)
        with pytest.raises(UserError, match=r'b\.png cannot be read as a picture'):
            read_label_map(tmp_path / 'b.png', counted_classes(None))


def test_lossy_files_are_refused(tmp_path):
    Image.new('L', (8, 8)).save(tmp_path / 'a.jpg')
    Image.new('L', (8, 8)).save(tmp_path / 'a.tif', compression='jpeg')
    for name in ('a.jpg', 'a.tif'):
        with pytest.raises(UserError, match=r'is compressed as JPEG, which changes ids at class borders: .* PNG'):
            read_label_map(tmp_path / name, counted_classes(None))


def test_a_mask_is_turned_as_its_image_is(tmp_path):
    Image.fromarray(np.array([[0, 1, 2]], np.uint8)).save(tmp_path / 'a.png', exif=turned(6))
    Image.fromarray(np.array([[0, 1, 2]], np.uint8)).save(tmp_path / 'a.tif', tiffinfo={274: 6})
    for name in ('a.png', 'a.tif'):
        assert read_label_map(tmp_path / name, counted_classes(None)).tolist() == [[0], [1], [2]]


@pytest.mark.parametrize(('make', 'words'), [(os.mkfifo, 'not a regular file'), (os.mkdir, 'give a file')])
def test_a_pipe_or_folder_in_place_of_a_mask_is_refused_at_once(tmp_path, make, words):
    make(tmp_path / 'a.png')
    with pytest.raises(UserError, match=rf'a\.png cannot be read as a picture .*{words}'):
        read_label_map(tmp_path / 'a.png', counted_classes(None))
