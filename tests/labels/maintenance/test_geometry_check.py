"""The geometry of a store's maps, found by annotating anew."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.label_stores import store_of
from tokenlabel.data.readers import open_images
from tokenlabel.errors import UserError
from tokenlabel.labels.annotator import Annotator
from tokenlabel.labels.annotator.dense_classifier import DenseClassifier
from tokenlabel.labels.maintenance.geometry_check import (
    GEOMETRIES,
    Geometry,
    agreement,
    check_geometry,
    contradiction,
    judge,
)
from tokenlabel.labels.view_rule import CenterCrop, Squash, rule_record

SIZE = 96
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


class Patches(torch.nn.Module):
    """A classifier of patches of 16 pixels that see nothing of each other."""

    num_classes = 7

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed = torch.nn.Conv2d(3, 24, 16, stride=16)
        self.classify = torch.nn.Linear(24, self.num_classes)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return self.embed(images).relu()

    def forward_head(self, features: torch.Tensor) -> torch.Tensor:
        return 20 * self.classify(features.mean((2, 3)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(images))


def annotator_of(model: torch.nn.Module, size: int = SIZE) -> Annotator:
    return Annotator(DenseClassifier(model), size, MEAN, STD, {'name': 'tiny'})


@pytest.fixture(scope='module')
def annotator() -> Annotator:
    return annotator_of(Patches())


def write_images(folder, sizes):
    """Images of a few coloured patches, different everywhere."""
    rng = np.random.default_rng(0)
    for number, size in enumerate(sizes):
        path = folder / f'class/{number:02d}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        patches = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        patches.resize(size, Image.Resampling.BICUBIC).save(path)
    return open_images(folder)


@pytest.fixture(scope='module')
def reader(tmp_path_factory):
    sizes = [(150, 90), (100, 160), (80, 200), (120, 120)] * 6
    return write_images(tmp_path_factory.mktemp('images'), sizes)


def make_store(path, reader, annotator, geometry: Geometry, recorded=None, crop_pct=1.0, change=None, **settings):
    """Maps of this geometry, whatever the record says."""
    rule = Squash(SIZE) if geometry.rule == Squash.name else CenterCrop(SIZE, crop_pct)
    images = [Image.open(reader[index][0]).convert('RGB') for index in range(len(reader))]
    pixels = torch.stack([rule.pixels(image) for image in images]) / 255
    logits = annotator.dense((pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1))
    if geometry.transposed:
        logits = logits.transpose(2, 3)
    scores, classes = (change(logits) if change else logits).topk(3, dim=1)
    sizes = np.array([image.size for image in images])
    view = rule_record(recorded or rule)
    return store_of(path, reader.filenames(), scores.numpy(), classes.numpy(), sizes, view=view, **settings)


@pytest.mark.parametrize('geometry', GEOMETRIES, ids=str)
def test_each_geometry_is_found_whatever_the_record_says(tmp_path, reader, annotator, geometry):
    store = make_store(tmp_path / 'store', reader, annotator, geometry, recorded=Squash(SIZE))
    check = check_geometry(store, reader, annotator, samples=16)
    assert check.geometry == geometry, check.reason
    assert check.scores.mean(0).max() == pytest.approx(1, abs=1e-3)
    assert check.reason == ''


@pytest.mark.parametrize('geometry', GEOMETRIES, ids=str)
def test_a_slightly_different_annotator_finds_it_too(tmp_path, reader, annotator, geometry):
    store = make_store(tmp_path / 'store', reader, annotator, geometry)
    other = Patches()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += 0.1 * parameter.std() * torch.randn(parameter.shape, generator=generator)
    check = check_geometry(store, reader, annotator_of(other), samples=16)
    assert check.geometry == geometry, check.reason
    assert check.scores.mean(0).max() < 0.99


def test_an_annotator_of_another_size_finds_it_too(tmp_path, reader, annotator):
    geometry = Geometry('center-crop', True)
    store = make_store(tmp_path / 'store', reader, annotator, geometry)
    check = check_geometry(store, reader, annotator_of(annotator.dense.model, 128), samples=16)
    assert check.geometry == geometry, check.reason


def test_the_crop_may_be_smaller_than_the_shorter_side(tmp_path, reader, annotator):
    geometry = Geometry('center-crop', False)
    store = make_store(tmp_path / 'store', reader, annotator, geometry, crop_pct=0.8)
    assert check_geometry(store, reader, annotator, samples=16, crop_pct=0.8).geometry == geometry


def test_square_images_do_not_tell_a_crop_from_the_whole(tmp_path, annotator):
    reader = write_images(tmp_path / 'images', [(120, 120)] * 12)
    store = make_store(tmp_path / 'store', reader, annotator, Geometry('squash', False))
    check = check_geometry(store, reader, annotator)
    assert check.geometry is None
    assert '"whole image, upright" and "centre crop, upright" cannot be told apart' in check.reason
    assert 'so close to square' in check.reason


def test_symmetric_maps_do_not_tell_upright_from_transposed(tmp_path, reader, annotator):
    store = make_store(
        tmp_path / 'store',
        reader,
        annotator,
        Geometry('squash', False),
        change=lambda logits: logits + logits.transpose(2, 3),
    )
    check = check_geometry(store, reader, annotator, samples=16)
    assert check.geometry is None
    assert 'look the same when transposed' in check.reason


def test_uniform_maps_fit_nothing(tmp_path, reader, annotator):
    store = make_store(
        tmp_path / 'store',
        reader,
        annotator,
        Geometry('squash', False),
        change=lambda logits: logits.mean((2, 3), keepdim=True).expand_as(logits),
    )
    check = check_geometry(store, reader, annotator, samples=16)
    assert check.geometry is None
    assert 'No geometry fits' in check.reason


def test_maps_of_other_images_fit_nothing(tmp_path, reader, annotator):
    store = make_store(
        tmp_path / 'store', reader, annotator, Geometry('squash', False), change=lambda logits: logits.roll(4, dims=0)
    )
    check = check_geometry(store, reader, annotator, samples=16)
    assert check.geometry is None
    assert 'No geometry fits' in check.reason


def test_few_images_are_too_few(tmp_path, reader, annotator):
    store = make_store(tmp_path / 'store', reader, annotator, Geometry('squash', False))
    assert 'too few' in check_geometry(store, reader, annotator, samples=7).reason


def test_the_images_farthest_from_square_are_taken(tmp_path, reader, annotator, monkeypatch):
    store = make_store(tmp_path / 'store', reader, annotator, Geometry('squash', False))
    opened, open_one = [], type(reader).__getitem__
    monkeypatch.setattr(type(reader), '__getitem__', lambda self, i: opened.append(i) or open_one(self, i))
    check_geometry(store, reader, annotator, samples=8)
    monkeypatch.undo()
    annotated = opened[len(reader) :]
    assert {Image.open(reader[index][0]).size for index in annotated} <= {(80, 200), (150, 90)}


def test_images_that_the_store_lacks_are_left_out(tmp_path, reader, annotator):
    store = make_store(tmp_path / 'store', reader, annotator, Geometry('squash', False))
    more = SimpleNamespace(filenames=lambda: ['new.png'])
    with pytest.raises(UserError, match='has no map of any of these images'):
        check_geometry(store, more, annotator)


def test_an_annotator_of_other_classes_is_refused(tmp_path, reader, annotator):
    store = make_store(tmp_path / 'store', reader, annotator, Geometry('squash', False), num_classes=9)
    with pytest.raises(UserError, match='has 9 classes, the annotator 7'):
        check_geometry(store, reader, annotator)


def test_a_store_of_another_rule_is_refused(tmp_path, reader, annotator):
    store = make_store(tmp_path / 'store', reader, annotator, Geometry('squash', False))
    store.view_rule = SimpleNamespace(name='native')
    with pytest.raises(UserError, match='only squash and center-crop are compared'):
        check_geometry(store, reader, annotator)


def test_agreement_ignores_what_is_said_of_the_whole_image():
    maps = torch.rand(5, 4, 4)
    assert agreement(maps, maps + torch.arange(5.0).view(5, 1, 1)) == pytest.approx(1, abs=1e-5)
    assert agreement(maps, -maps) == pytest.approx(-1, abs=1e-5)
    assert agreement(maps, torch.full((5, 4, 4), 0.2)) == 0


def test_a_lead_must_exceed_its_errors_and_a_margin():
    noise = np.random.default_rng(0).normal(0, 0.3, (64, 4))
    assert judge(noise + 0.5).geometry is None
    assert judge(noise + np.eye(4)[2]).geometry == GEOMETRIES[2]
    assert judge(np.tile([0.5, 0.505, 0.1, 0.1], (64, 1))).geometry is None


@pytest.mark.parametrize(
    ('annotator_record', 'geometry', 'said'),
    [
        ({'name': 'x', 'transposed': False}, Geometry('squash', False), None),
        ({'name': 'x', 'transposed': False}, Geometry('squash', True), '--view squash and with --transposed'),
        ({'name': 'x', 'transposed': True}, Geometry('squash', True), '--view squash and without --transposed'),
        ({'name': 'x', 'transposed': True}, Geometry('center-crop', False), '--view center-crop and with --transposed'),
        ({'name': 'x'}, Geometry('center-crop', False), 'annotate the images again with --view center-crop'),
    ],
)
def test_a_record_that_is_wrong_comes_with_what_to_do(annotator_record, geometry, said):
    store = SimpleNamespace(path='labels', view_rule=Squash(8), meta={'annotator': annotator_record})
    told = contradiction(store, geometry)
    assert told is None if said is None else said in told
