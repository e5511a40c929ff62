"""The annotation loop: images in, a label store out."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.readers import create_reader

from tests.tiny_classifiers import tiny
from tokenlabel.errors import UserError
from tokenlabel.labels.annotation import SquashedImages, annotate
from tokenlabel.labels.dense_classifier import DenseClassifier
from tokenlabel.labels.store import LabelStore, LabelWriter, image_keys


@pytest.fixture
def folder(tmp_path) -> Path:
    """Ten images in three class folders; natural and byte-wise order of their names differ."""
    random = np.random.default_rng(0)
    for number in range(10):
        path = tmp_path / 'images' / f'class {"abc"[number % 3]}' / f'ö{number + 5}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (20 + number, 40, 3), dtype=np.uint8)).save(path)
    return tmp_path / 'images'


def writer_for(path: Path, reader) -> LabelWriter:
    return LabelWriter(
        path,
        image_keys(reader),
        annotator={'name': 'test_resnet'},
        num_classes=7,
        k=3,
        grid=(3, 3),
        view={'rule': 'squash', 'size': 96},
        batch_size=4,
    )


def test_a_store_holds_the_best_scores_of_each_whole_image(folder, tmp_path):
    dense = DenseClassifier(tiny('test_resnet'))
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    reader = create_reader('', str(folder))
    with writer_for(tmp_path / 'store', reader) as writer:
        annotate(dense, reader, writer, mean, std)
        writer.finalise()
    store = LabelStore(tmp_path / 'store')
    assert len(store) == 10
    for index, key in enumerate(store.keys):
        image = Image.open(folder / key)
        pixels = torch.from_numpy(np.array(image.resize((96, 96), Image.Resampling.BICUBIC))).permute(2, 0, 1) / 255
        logits = dense(((pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1))[None])[0]
        scores, classes = logits.sort(dim=0, descending=True)
        np.testing.assert_allclose(store[index].scores, scores[:3], atol=1e-3, rtol=1e-3)
        np.testing.assert_array_equal(store[index].classes, classes[:3])
        assert store.size(index) == image.size


def test_an_interrupted_annotation_is_resumed(folder, tmp_path):
    dense = DenseClassifier(tiny('test_resnet'))
    reader = create_reader('', str(folder))
    channels = (0.5, 0.5, 0.5)

    def stop(count: int) -> None:
        raise KeyboardInterrupt

    with writer_for(tmp_path / 'store', reader) as writer, pytest.raises(KeyboardInterrupt):
        annotate(dense, reader, writer, channels, channels, on_batch=stop)
    counts = []
    with writer_for(tmp_path / 'store', reader) as writer:
        annotate(dense, reader, writer, channels, channels, on_batch=counts.append)
        writer.finalise()
    assert counts == [4, 2]


def test_an_unreadable_image_is_named(folder, tmp_path):
    broken = folder / 'class b' / 'ö6.png'
    broken.write_bytes(broken.read_bytes()[:300])
    reader = create_reader('', str(folder))
    with writer_for(tmp_path / 'store', reader) as writer, pytest.raises(UserError, match=r'class b/ö6\.png'):
        annotate(DenseClassifier(tiny('test_resnet')), reader, writer, (0.5,) * 3, (0.5,) * 3, workers=1)


def test_grey_and_palette_images_become_rgb(tmp_path):
    (tmp_path / 'c').mkdir()
    Image.new('L', (10, 20), 7).save(tmp_path / 'c' / 'grey.png')
    Image.new('P', (30, 20), 0).save(tmp_path / 'c' / 'palette.png')
    images = SquashedImages(create_reader('', str(tmp_path)), np.arange(2), 16)
    assert [images[index][1] for index in range(2)] == [(10, 20), (30, 20)]
    assert all(images[index][0].shape == (3, 16, 16) for index in range(2))
