"""Damage to a store is found and its file named."""

import json
import os
import re
from types import SimpleNamespace

import numpy as np
import pytest

from tests.label_stores import store_of
from tokenlabel.errors import UserError
from tokenlabel.labels.maintenance.verification import verify_store
from tokenlabel.labels.store.files import file_digest

KEYS = [f'{folder}/{number}.jpg' for folder in ('cat', 'dog') for number in range(6)]


def make_store(folder, **changes):
    """Twelve images in two shards."""
    scores = np.linspace(9, 1, 12 * 3 * 4).reshape(12, 3, 2, 2)
    classes = np.broadcast_to(np.arange(3)[:, None, None], scores.shape)
    arrays = {'scores': scores, 'classes': classes, 'sizes': np.full((12, 2), 50)} | changes
    return store_of(folder / 'store', KEYS, **arrays, num_classes=3)


def reader_of(keys, class_to_idx=None):
    return SimpleNamespace(filenames=lambda: keys, class_to_idx=class_to_idx or {})


def rewrite(store, name, change):
    """Change an array of a shard and record the checksum of what it has become: its contents alone are wrong."""
    array = np.load(store.path / name)
    change(array)
    np.save(store.path / name, array)
    change_meta(store, checksums=store.meta['checksums'] | {name: file_digest(store.path / name)})


def change_meta(store, **fields):
    (store.path / 'meta.json').write_text(json.dumps(store.meta | fields))


def test_a_sound_store_has_no_problems(tmp_path):
    store = make_store(tmp_path)
    assert verify_store(store.path) == []
    assert verify_store(store.path, reader_of(KEYS, {'cat': 0, 'dog': 1})) == []


def test_every_file_that_has_a_checksum_is_reported(tmp_path):
    files = []
    store = make_store(tmp_path)
    verify_store(store.path, on_file=lambda: files.append(1))
    assert len(files) == len(store.meta['checksums']) == 7


@pytest.mark.parametrize('name', ['keys.npy', 'scores-00001.npy', 'classes-00000.npy', 'sizes-00001.npy'])
def test_a_flipped_byte_names_its_file(tmp_path, name):
    store = make_store(tmp_path)
    with open(store.path / name, 'r+b') as file:
        file.seek(-1, os.SEEK_END)
        byte = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))
    assert f'{store.path / name} has changed since it was written' in verify_store(store.path)[0]


@pytest.mark.parametrize('name', ['keys.npy', 'scores-00001.npy'])
def test_a_truncated_file_is_named(tmp_path, name):
    store = make_store(tmp_path)
    os.truncate(store.path / name, (store.path / name).stat().st_size - 10)
    problems = verify_store(store.path)
    assert len(problems) == 2
    assert all(str(store.path / name) in problem for problem in problems)


def test_a_missing_file_is_named_once(tmp_path):
    store = make_store(tmp_path)
    (store.path / 'classes-00001.npy').unlink()
    assert verify_store(store.path) == [f'{store.path / "classes-00001.npy"} is missing.']


@pytest.mark.parametrize(
    ('name', 'change', 'said'),
    [
        ('scores-00000.npy', lambda array: array.__setitem__((2, 0, 1, 1), np.nan), 'cat/2.jpg has scores that are'),
        ('scores-00001.npy', lambda array: array.__setitem__((0, 2), 50), 'dog/2.jpg has a cell whose best score'),
        (
            'classes-00000.npy',
            lambda array: array.__setitem__(slice(3, 5), 3),
            r'cat/3.jpg \(and 1 more\) names',
        ),
        ('sizes-00000.npy', lambda array: array.__setitem__((1, 1), 0), 'cat/1.jpg has a width but no height'),
        ('sizes-00000.npy', lambda array: array.__setitem__(1, 0), 'cat/1.jpg should have a size exactly'),
        ('keys.npy', lambda array: array.__setitem__(4, array[3]), 'names an image twice: cat/3.jpg'),
    ],
)
def test_numbers_that_no_annotator_writes_are_found(tmp_path, name, change, said):
    store = make_store(tmp_path)
    rewrite(store, name, change)
    [problem] = verify_store(store.path)
    assert problem.startswith(str(store.path / name))
    assert re.search(said, problem)


def test_an_array_of_another_type_is_named(tmp_path):
    store = make_store(tmp_path)
    np.save(store.path / 'scores-00001.npy', np.load(store.path / 'scores-00001.npy').astype(np.float64))
    change_meta(
        store, checksums=store.meta['checksums'] | {'scores-00001.npy': file_digest(store.path / 'scores-00001.npy')}
    )
    [problem] = verify_store(store.path)
    assert 'scores-00001.npy is damaged: float64' in problem


def test_skipped_images_are_no_problem(tmp_path):
    sizes = np.full((12, 2), 50)
    sizes[5] = 0
    store = make_store(tmp_path, sizes=sizes, scores=np.zeros((12, 3, 2, 2)))
    assert verify_store(store.path, reader_of(KEYS)) == []


@pytest.mark.parametrize(
    ('keys', 'class_to_idx', 'said'),
    [
        ([*KEYS, 'elk/1.jpg'], {}, 'has no maps of 1 images (the first: elk/1.jpg)'),
        (KEYS[:-4], {}, 'maps of images that are not there: 4 images (the first: dog/2.jpg, dog/3.jpg, dog/4.jpg)'),
        (KEYS, {'cat': 0, 'elk': 1}, 'has no class elk'),
        (KEYS, {'dog': 0, 'cat': 1}, 'calls class 0 cat, but the image folder dog'),
    ],
)
def test_a_store_of_other_images_or_classes_is_told(tmp_path, keys, class_to_idx, said):
    scores = np.zeros((12, 2, 2, 2))
    classes = np.zeros_like(scores, dtype=int)
    names = ['cat', 'dog']
    store = store_of(tmp_path / 'store', KEYS, scores, classes, np.full((12, 2), 50), num_classes=2, class_names=names)
    [problem] = verify_store(store.path, reader_of(keys, class_to_idx))
    assert said in problem


@pytest.mark.parametrize('class_to_idx', [{'cat': 0}, {'ant': 0, 'bee': 1, 'fly': 2}, {}])
def test_images_of_fewer_or_of_quite_other_classes_are_no_problem(tmp_path, class_to_idx):
    arrays = np.zeros((12, 2, 2, 2)), np.zeros((12, 2, 2, 2), int), np.full((12, 2), 50)
    store = store_of(tmp_path / 'store', KEYS, *arrays, num_classes=2, class_names=['cat', 'dog'])
    assert verify_store(store.path, reader_of(KEYS, class_to_idx)) == []


@pytest.mark.parametrize(
    ('fields', 'said'),
    [
        ({'complete': False}, 'is unfinished'),
        ({'checksums': {}}, 'has no checksum of keys.npy, '),
        ({'num_images': 13}, 'keys.npy is damaged: 12 keys, not 13'),
    ],
)
def test_a_meta_file_that_tells_something_else_is_a_problem(tmp_path, fields, said):
    store = make_store(tmp_path)
    change_meta(store, **fields)
    assert any(said in problem for problem in verify_store(store.path))


def test_a_meta_file_that_lacks_fields_is_a_problem(tmp_path):
    store = make_store(tmp_path)
    (store.path / 'meta.json').write_text(json.dumps({name: store.meta[name] for name in ('format', 'version', 'k')}))
    assert 'meta.json lacks annotator, view' in verify_store(store.path)[0]


def test_no_store_is_an_error(tmp_path):
    with pytest.raises(UserError, match='No label store'):
        verify_store(tmp_path)
