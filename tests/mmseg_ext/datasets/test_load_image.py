"""MMSegmentation's pipelines read images by the one reader, with the arguments that MMCV's loader has."""

import numpy as np
import pytest
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from mmseg.registry import TRANSFORMS
from PIL import Image

import mmseg_ext  # noqa: F401
from mmseg_ext.datasets import LoadImageFromFile, LoadImageFromNDArray
from tests.picture_files import COLOR, DEEP, GREY, OPACITY, encoded, on_white, rgb
from tokenlabel.errors import UserError


@pytest.fixture
def path(tmp_path) -> str:
    Image.fromarray(COLOR).save(tmp_path / 'a.png')
    return str(tmp_path / 'a.png')


def test_a_config_s_loader_is_ours():
    init_default_scope('mmseg')
    [loader] = Compose([dict(type='LoadImageFromFile')]).transforms
    assert type(loader) is LoadImageFromFile
    assert type(TRANSFORMS.build(dict(type='LoadImageFromNDArray'))) is LoadImageFromNDArray


def test_the_results_are_mmcv_s(path):
    results = LoadImageFromFile(to_float32=True, imdecode_backend='pillow', backend_args=dict(backend='local'))(
        dict(img_path=path)
    )
    assert results.keys() == {'img_path', 'img', 'img_shape', 'ori_shape'}
    assert results['img'].dtype == np.float32
    np.testing.assert_array_equal(results['img'], COLOR[..., ::-1])
    assert results['img_shape'] == results['ori_shape'] == (6, 9)


def test_grey_can_be_asked_for(path):
    Image.fromarray(rgb(GREY)).save(path)
    np.testing.assert_array_equal(LoadImageFromFile(color_type='grayscale')(dict(img_path=path))['img'], GREY)


def test_an_image_that_cannot_be_read_is_none_where_it_may_be(path):
    assert LoadImageFromFile(ignore_empty=True)(dict(img_path=path + '.jpg')) is None


@pytest.mark.parametrize(
    'argument',
    [dict(color_type='unchanged'), dict(color_type='color_ignore_orientation'), dict(imdecode_backend='tifffile')],
)
def test_what_the_one_reader_does_not_give_is_refused(argument):
    with pytest.raises(UserError, match=rf'^LoadImageFromFile does not support {next(iter(argument))}='):
        TRANSFORMS.build(dict(type='LoadImageFromFile', **argument))


def test_arrays_follow_the_rule_for_files():
    load = LoadImageFromNDArray()
    rgba = np.dstack([COLOR, OPACITY])
    for array, expected in ((COLOR, COLOR), (rgba, on_white(COLOR, OPACITY)), (DEEP, rgb(DEEP >> 8))):
        results = load(dict(img=array))
        np.testing.assert_array_equal(results['img'], expected)
        assert results['img_path'] is None and results['ori_shape'] == (6, 9)
    with pytest.raises(UserError, match='The image has values from -1'):
        load(dict(img=DEEP.astype(int) - 1))


def test_a_file_of_another_place_is_read_from_there(monkeypatch):
    class Remote:
        def get(self, path):
            if 'lost' in path:
                raise RuntimeError('no such key')
            return encoded(Image.fromarray(COLOR), 'PNG')

    monkeypatch.setattr('mmengine.fileio.get_file_backend', lambda *args, **kwargs: Remote())
    np.testing.assert_array_equal(LoadImageFromFile()(dict(img_path='s3://a.png'))['img'], COLOR[..., ::-1])
    with pytest.raises(UserError, match=r's3://lost\.png cannot be read as an image \(no such key\): check'):
        LoadImageFromFile()(dict(img_path='s3://lost.png'))
