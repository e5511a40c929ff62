"""Your own folders of images and masks as a data set."""

from pathlib import Path

import pytest
from mmseg.registry import DATASETS

import mmseg_ext  # noqa: F401  (registers the names)
from tokenlabel.errors import UserError


def make(root: Path, *files: str) -> None:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def build(root: Path, **changes):
    prefix = dict(img_path='images', seg_map_path='masks')
    options = dict(
        type='ImageMaskFolders', data_root=str(root), data_prefix=prefix, classes=['sky', 'sea'], pipeline=[]
    )
    return DATASETS.build(options | changes)


def pairs(dataset, root: Path) -> list[tuple[str, str]]:
    samples = [dataset.get_data_info(i) for i in range(len(dataset))]
    return [tuple(str(Path(x[key]).relative_to(root)) for key in ('img_path', 'seg_map_path')) for x in samples]


def test_images_and_masks_of_several_kinds_are_paired_by_name(tmp_path):
    make(tmp_path, 'images/b.JPG', 'images/a.tif', 'images/deep/a.png', 'images/notes.txt')
    make(tmp_path, 'masks/a.png', 'masks/b.TIF', 'masks/deep/a.png', 'masks/unused.png')
    assert pairs(build(tmp_path), tmp_path) == [
        ('images/a.tif', 'masks/a.png'),
        ('images/b.JPG', 'masks/b.TIF'),
        ('images/deep/a.png', 'masks/deep/a.png'),
    ]


def test_suffixes_may_be_more_than_a_kind_of_file(tmp_path):
    make(tmp_path, 'all/a_photo.png', 'all/a_mask.png')
    folders = dict(img_path='all', seg_map_path='all')
    dataset = build(tmp_path, data_prefix=folders, img_suffix='_photo.png', seg_map_suffix='_mask.png')
    assert pairs(dataset, tmp_path) == [('all/a_photo.png', 'all/a_mask.png')]


def test_a_list_takes_a_part_of_one_folder(tmp_path):
    make(tmp_path, 'images/a.jpg', 'images/b.png', 'images/c.jpg', 'masks/a.png', 'masks/b.png')
    (tmp_path / 'val.txt').write_text('b\n\na.jpg\n')
    assert [image for image, _ in pairs(build(tmp_path, ann_file='val.txt'), tmp_path)] == [
        'images/a.jpg',
        'images/b.png',
    ]


def test_a_list_is_read_as_editors_write_it_and_names_may_have_dots(tmp_path):
    images = ['clip_2.0_001.jpg', 'clip_2.0_002.jpg', 'caf\udce9.jpg', 'x.png.jpg']
    make(tmp_path, *(f'images/{name}' for name in images), *(f'masks/{name[:-4]}.png' for name in images))
    (tmp_path / 'val.txt').write_bytes(b'\xef\xbb\xbfclip_2.0_002\r\n./caf\xe9.jpg\r\nx.png\r\n\r\n \r\n')
    assert [image for image, _ in pairs(build(tmp_path, ann_file='val.txt'), tmp_path)] == [
        'images/caf\udce9.jpg',
        'images/clip_2.0_002.jpg',
        'images/x.png.jpg',
    ]


def test_a_list_leads_nowhere_else(tmp_path):
    make(tmp_path, 'images/a.jpg', 'masks/a.png', 'b.jpg')
    (tmp_path / 'val.txt').write_text('../b.jpg\n')
    with pytest.raises(UserError, match=r'lists 1 images that are not in .*images, such as \.\./b'):
        build(tmp_path, ann_file='val.txt')


def test_a_list_of_classes_has_no_gap(tmp_path):
    make(tmp_path, 'images/a.jpg', 'masks/a.png')
    (tmp_path / 'names.txt').write_bytes(b'\xef\xbb\xbfsky\r\nsea\r\n\r\n')
    assert build(tmp_path, classes='names.txt').metainfo['classes'] == ('sky', 'sea')
    (tmp_path / 'names.txt').write_text('sky\n\nsea\n')
    with pytest.raises(UserError, match=r'names\.txt is blank in line 2'):
        build(tmp_path, classes='names.txt')


def test_images_alone_are_to_predict_on(tmp_path):
    make(tmp_path, 'images/a.jpg')
    dataset = build(tmp_path, data_prefix=dict(img_path='images'), test_mode=True)
    assert 'seg_map_path' not in dataset.get_data_info(0)


def test_classes_come_from_a_text_file_and_have_distinct_colours(tmp_path):
    make(tmp_path, 'images/a.jpg', 'masks/a.png')
    (tmp_path / 'names.txt').write_text('sky\nblue whale\n\n')
    info = build(tmp_path, classes='names.txt').metainfo
    assert info['classes'] == ('sky', 'blue whale')
    assert len({tuple(colour) for colour in info['palette']}) == 2


def test_what_is_wrong_is_said_in_one_sentence(tmp_path):
    def refused(message: str, **changes) -> None:
        with pytest.raises(UserError, match=message):
            build(tmp_path, **changes)

    refused('images is missing')
    make(tmp_path, 'images/a.txt', 'masks/b.png')
    refused('images holds no images')
    make(tmp_path, 'images/a.jpg', 'images/b.jpg')
    refused(r'1 of 2 images .* have no mask, such as .*a\.jpg')
    make(tmp_path, 'masks/a.png', 'masks/a.tif')
    refused(r'a\.png and .*a\.tif have the same name')
    refused(r'val\.txt cannot be read', ann_file='val.txt')
    (tmp_path / 'val.txt').write_text('a\nz\n')
    refused(r'lists 1 images that are not in .*images, such as z', ann_file='val.txt')
    refused(r'names\.txt cannot be read', classes='names.txt')
    refused("'sky' is named twice", classes=['sky', 'sky'])
    refused('there are 0', classes=[])
    refused('1 colours for 2 classes', palette=[[0, 0, 0]])
