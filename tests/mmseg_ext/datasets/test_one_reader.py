"""Annotation, pretraining, segmentation and `Segmenter` see the same pixels of every file, or say the same of it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from mmseg_ext.datasets import LoadImageFromFile
from mmseg_ext.datasets.read_image import read_size
from mmseg_ext.inference.image_pixels import image_pixels
from tests.picture_files import COLOR, FAULTS, KINDS, encoded
from tokenlabel.data.images import LabeledImages
from tokenlabel.data.readers import open_images
from tokenlabel.errors import UserError
from tokenlabel.image_files.reading import decode, rgb_pixels
from tokenlabel.labels.annotator.annotation import ViewedImages, _collate, _report
from tokenlabel.labels.source_images import image_size, open_rgb
from tokenlabel.transforms.view import View


class Whole:
    """A view rule, and a transform: the image as it is."""

    size = 1

    def pixels(self, image):
        return pil_to_tensor(image)

    def __call__(self, image):
        return pil_to_tensor(decode(image)), View.identity()


class Undecoded(Whole):
    """A transform that decodes for itself, as the quick one does."""

    def __call__(self, image):
        return torch_order(rgb_pixels(image)), View.identity()


def torch_order(pixels: np.ndarray) -> np.ndarray:
    return pixels.transpose(2, 0, 1)


def annotated(folder: Path) -> np.ndarray:
    image = ViewedImages(open_images(folder), np.arange(1), Whole())[0]
    if image.unreadable:
        _report(_collate([image]).unreadable, None)
    assert image.size == tuple(image.pixels.shape[:0:-1])
    return image.pixels.numpy()


READERS = {
    'annotation': annotated,
    'pretraining': lambda folder: LabeledImages(folder, Whole())[0]['image'].numpy(),
    'pretraining, quick': lambda folder: LabeledImages(folder, Undecoded())[0]['image'],
    'tools/labels.py': lambda folder: np.moveaxis(np.asarray(open_rgb(open_images(folder), 0)), 2, 0),
    'MMSegmentation': lambda folder: torch_order(
        LoadImageFromFile()(dict(img_path=str(folder / 'cat/a.png')))['img'][..., ::-1]
    ),
    'Segmenter': lambda folder: torch_order(image_pixels(folder / 'cat/a.png', 4 * 2**30)),
}


@pytest.fixture
def path(tmp_path) -> Path:
    (tmp_path / 'cat').mkdir()
    return tmp_path / 'cat/a.png'


@pytest.mark.parametrize('kind', KINDS)
def test_everyone_sees_the_same_pixels(path, kind):
    data, expected = KINDS[kind]
    path.write_bytes(data)
    for name, read in READERS.items():
        np.testing.assert_array_equal(read(path.parents[1]), torch_order(expected), name)
    height, width = expected.shape[:2]
    assert image_size(open_images(path.parents[1]), 0) == (width, height)
    assert read_size(str(path)) == (width, height)


@pytest.mark.parametrize('fault', FAULTS)
def test_everyone_says_the_same_of_what_cannot_be_read(path, fault, monkeypatch):
    put, words = FAULTS[fault]
    path.write_bytes(encoded(Image.fromarray(COLOR), 'PNG'))
    reader = open_images(path.parents[1])  # before the file goes wrong
    for module in ('tokenlabel.data.images', __name__):
        monkeypatch.setattr(f'{module}.open_images', lambda *args: reader)
    path.unlink()
    put(path)
    for read in READERS.values():
        with pytest.raises(UserError, match=rf'^[^\n]*a\.png cannot be read as an image \([^\n]*{words}[^\n]*$'):
            read(path.parents[1])
