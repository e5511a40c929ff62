"""The annotation loop: images in, a label store out."""

import os
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.readers import create_reader

from tests.tiny_classifiers import tiny
from tokenlabel.errors import UserError
from tokenlabel.labels.annotator import Annotator
from tokenlabel.labels.annotator.annotation import Tally, ViewedImages, annotate
from tokenlabel.labels.annotator.dense_classifier import DenseClassifier
from tokenlabel.labels.annotator.inference import Inference
from tokenlabel.labels.store import LabelStore, LabelWriter, image_keys
from tokenlabel.labels.view_rule import CenterCrop, Native, Squash, ViewRule, rule_record

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Ten images in three class folders; natural and byte-wise order of their names differ."""
    random = np.random.default_rng(0)
    for number in range(10):
        path = tmp_path / 'images' / f'class {"abc"[number % 3]}' / f'ö{number + 5}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (20 + number, 40, 3), dtype=np.uint8)).save(path)
    return tmp_path / 'images'


@pytest.fixture(scope='module')
def dense() -> DenseClassifier:
    return DenseClassifier(tiny('test_resnet'))


def writer_for(path: Path, reader, rule: ViewRule | None = None) -> LabelWriter:
    return LabelWriter(
        path,
        image_keys(reader),
        annotator={'name': 'test_resnet'},
        num_classes=7,
        k=3,
        grid=(3, 3),
        view=rule_record(rule or Squash(96)),
        batch_size=4,
    )


def at_work(dense: DenseClassifier, rule: ViewRule | None = None, **options) -> Inference:
    return Inference(Annotator(dense, 96, MEAN, STD, {}), rule or Squash(96), 3, **options)


def annotated(
    path: Path, folder: Path, dense: DenseClassifier, rule: ViewRule | None = None, on_unreadable=None, **options
) -> LabelStore:
    """The finished store of a folder."""
    reader = create_reader('', str(folder))
    with writer_for(path, reader, rule) as writer:
        annotate(at_work(dense, rule, **options), reader, writer, on_unreadable=on_unreadable)
        writer.finalise()
    return LabelStore(path)


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    return (pixels / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize('rule', [Squash(96), CenterCrop(96, 0.8), Native(96)], ids=lambda rule: rule.name)
def test_a_store_holds_the_best_scores_of_what_the_annotator_sees(folder, tmp_path, dense, rule):
    store = annotated(tmp_path / 'store', folder, dense, rule)
    assert len(store) == 10
    for index, key in enumerate(store.keys):
        image = Image.open(folder / key)
        logits = dense(normalised(rule.pixels(image))[None])[0]
        scores, classes = logits.sort(dim=0, descending=True)
        size = torch.tensor([image.size])
        np.testing.assert_allclose(store[index].scores, rule.settle(scores[None, :3], size)[0], atol=2e-3, rtol=2e-3)
        np.testing.assert_array_equal(store[index].classes, rule.settle(classes[None, :3], size)[0])
        assert store.size(index) == image.size
        np.testing.assert_array_equal(store[index].view.matrix, rule.view(*image.size).matrix)


def test_with_flip_a_map_is_the_mean_of_the_image_and_its_mirror_image(folder, tmp_path, dense):
    store = annotated(tmp_path / 'store', folder, dense, flip=True)
    image = normalised(Squash(96).pixels(Image.open(folder / store.keys[0])))[None]
    logits = (dense(image) + dense(image.flip(-1)).flip(-1)) / 2
    np.testing.assert_allclose(store[0].scores, logits[0].topk(3, dim=0)[0], atol=2e-3, rtol=2e-3)


def test_an_interrupted_annotation_is_resumed(folder, tmp_path, dense):
    reader = create_reader('', str(folder))

    def stop(tally: Tally) -> None:
        raise KeyboardInterrupt

    with writer_for(tmp_path / 'store', reader) as writer, pytest.raises(KeyboardInterrupt):
        annotate(at_work(dense), reader, writer, on_batch=stop)
    with writer_for(tmp_path / 'store', reader) as writer:
        assert writer.num_done == 4
        assert annotate(at_work(dense), reader, writer).images == 6
        writer.finalise()


def test_compiled_batches_are_all_of_one_shape(folder, tmp_path, monkeypatch):
    shapes = []

    def compile(features, **options):
        def compiled(images):
            shapes.append(tuple(images.shape))
            return features(images)

        return compiled

    monkeypatch.setattr(torch, 'compile', compile)
    compiled = annotated(tmp_path / 'compiled', folder, DenseClassifier(tiny('test_resnet')), batch_size=4)
    assert set(shapes[1:]) == {(4, 3, 96, 96)}
    store = annotated(tmp_path / 'store', folder, DenseClassifier(tiny('test_resnet')))
    np.testing.assert_allclose(compiled[9].scores, store[9].scores, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize('channels_last', [False, True])
def test_the_memory_format_changes_rounding_at_most(folder, tmp_path, dense, channels_last):
    store = annotated(tmp_path / 'store', folder, DenseClassifier(tiny('test_resnet')), channels_last=channels_last)
    logits = dense(normalised(Squash(96).pixels(Image.open(folder / store.keys[3])))[None])[0]
    np.testing.assert_allclose(store[3].scores, logits.topk(3, dim=0)[0], atol=2e-3, rtol=2e-3)


def test_the_tally_counts_what_the_annotator_gets_right(folder, tmp_path, dense):
    reader = create_reader('', str(folder))
    labels = np.array([4, 0, 6])
    with writer_for(tmp_path / 'store', reader) as writer:
        tally = annotate(at_work(dense), reader, writer, labels=labels)
    pixels = torch.stack([Squash(96).pixels(Image.open(reader[i][0])) for i in range(10)])
    best = dense.model(normalised(pixels)).argmax(1).numpy()
    expected = labels[[reader[i][1] for i in range(10)]].tolist()
    right = [label for label, answer in zip(expected, best.tolist(), strict=True) if label == answer]
    assert tally == Tally(images=10, labelled=Counter(expected), correct=Counter(right))
    assert tally.top1 == 10 * len(right)


def test_the_weakest_classes_come_first():
    tally = Tally(labelled=Counter({7: 4, 2: 1, 5: 2}), correct=Counter({7: 3, 5: 2}))
    assert tally.weakest(2) == [(2, 0.0), (7, 75.0)]


def test_images_of_classes_that_the_annotator_does_not_have_do_not_count(folder, tmp_path, dense):
    reader = create_reader('', str(folder))
    with writer_for(tmp_path / 'store', reader) as writer:
        tally = annotate(at_work(dense), reader, writer, labels=np.array([-1, 0, -1]))
    assert tally.labelled.total() == sum(reader[i][1] == 1 for i in range(10))
    with writer_for(tmp_path / 'other', reader) as writer:
        assert annotate(at_work(dense), reader, writer, labels=np.full(3, -1)).top1 is None


def test_an_unreadable_image_is_named_and_what_was_done_before_it_is_kept(folder, tmp_path, dense):
    broken = folder / 'class b' / 'ö6.png'
    broken.write_bytes(broken.read_bytes()[:300])
    reader = create_reader('', str(folder))
    with writer_for(tmp_path / 'store', reader) as writer:
        with pytest.raises(UserError, match=r'class b/ö6\.png.*--on-error skip'):
            annotate(at_work(dense), reader, writer, workers=1)
        assert writer.num_done == 4


@pytest.mark.parametrize('rule', [Squash(96), Native(96)], ids=lambda rule: rule.name)
def test_unreadable_images_can_be_left_out(folder, tmp_path, dense, rule):
    broken = [folder / 'class b' / 'ö6.png', folder / 'class a' / 'ö14.png']
    for path in broken:
        path.write_bytes(b'not an image')
    named = []
    store = annotated(tmp_path / 'store', folder, dense, rule, on_unreadable=named.append)
    assert [line.partition(' (')[0] for line in sorted(named)] == [str(path) for path in sorted(broken)]
    assert store.meta['skipped'] == ['class a/ö14.png', 'class b/ö6.png']
    row = store.keys.rows(['class b/ö6.png'])[0]
    assert store.size(int(row)) == (0, 0)
    readable = [key for key in store.keys if key not in store.meta['skipped']]
    assert (store.indices(readable) >= 0).all()


def test_a_worker_that_dies_is_one_sentence(folder, tmp_path, dense):
    reader = create_reader('', str(folder))
    main = os.getpid()

    class KillsWorkers:
        """Stands for the kernel that runs out of memory while an image is decoded."""

        class_to_idx = reader.class_to_idx

        def filenames(self):
            return reader.filenames()

        def __getitem__(self, index):
            if os.getpid() != main and index == 7:
                os.kill(os.getpid(), signal.SIGKILL)
            return reader[index]

    with (
        writer_for(tmp_path / 'store', reader) as writer,
        pytest.raises(UserError, match=r'A process that decodes images died.*fewer --workers'),
    ):
        annotate(at_work(dense), KillsWorkers(), writer, workers=1)


def test_grey_and_palette_images_become_rgb(tmp_path):
    (tmp_path / 'c').mkdir()
    Image.new('L', (10, 20), 7).save(tmp_path / 'c' / 'grey.png')
    Image.new('P', (30, 20), 0).save(tmp_path / 'c' / 'palette.png')
    images = ViewedImages(create_reader('', str(tmp_path)), np.arange(2), Squash(16))
    assert [images[index].size for index in range(2)] == [(10, 20), (30, 20)]
    assert all(images[index].pixels.shape == (3, 16, 16) for index in range(2))
