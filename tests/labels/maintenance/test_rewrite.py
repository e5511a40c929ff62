"""Stores merged and cut down."""

from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.label_stores import store_of
from tokenlabel.errors import UserError
from tokenlabel.labels.maintenance import rewrite
from tokenlabel.labels.maintenance.rewrite import keys_of_classes, merge_stores, subset_store
from tokenlabel.labels.store import LabelStore, LabelWriter

KEYS = sorted(f'{folder}/{number}.jpg' for folder in ('cat', 'dog', 'élan') for number in range(8))


def make_store(path: Path, keys: list[str], skipped: tuple[str, ...] = (), **changes) -> LabelStore:
    """Maps that depend on the image alone."""
    keys = sorted(keys, key=str.encode)
    numbers = np.array([sum(key.encode()) for key in keys])[:, None, None, None]
    scores = numbers % 17 - np.arange(12).reshape(3, 2, 2)
    classes = (numbers + np.arange(12).reshape(3, 2, 2)) % 7
    sizes = np.array([(0, 0) if key in skipped else (len(key) + 20, 30) for key in keys])
    return store_of(path, keys, scores, classes, sizes, **changes)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@settings(max_examples=15)
@given(
    owners=st.lists(st.integers(0, 2), min_size=len(KEYS), max_size=len(KEYS)), skipped=st.sets(st.sampled_from(KEYS))
)
def test_a_merged_store_equals_one_made_at_once(tmp_path_factory, owners, skipped):
    folder = tmp_path_factory.mktemp('stores')
    parts = [[key for key, owner in zip(KEYS, owners, strict=True) if owner == part] for part in range(3)]
    with mock.patch('os.fsync', lambda file: None):
        stores = [make_store(folder / str(i), part, skipped) for i, part in enumerate(parts) if part]
        merged = merge_stores(stores, folder / 'merged')
        at_once = make_store(folder / 'at once', KEYS, skipped, images_per_shard=None)
    assert contents(merged.path) == contents(at_once.path)


@settings(max_examples=15)
@given(kept=st.sets(st.sampled_from(KEYS), min_size=1), skipped=st.sets(st.sampled_from(KEYS)))
def test_a_subset_equals_a_store_of_these_images_alone(tmp_path_factory, kept, skipped):
    folder = tmp_path_factory.mktemp('stores')
    with mock.patch('os.fsync', lambda file: None):
        part = subset_store(make_store(folder / 'all', KEYS, skipped), kept, folder / 'part')
        alone = make_store(folder / 'alone', list(kept), skipped, images_per_shard=None)
    assert contents(part.path) == contents(alone.path)


def test_a_rewrite_that_was_stopped_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(rewrite, 'SYNCED_TOGETHER', 2)
    store = make_store(tmp_path / 'all', KEYS)
    seen, whole, write_all = [], subset_store(store, KEYS, tmp_path / 'whole'), LabelWriter.write_all

    def stop_at_second(writer, batches):
        if batches[0][0].start == 8:
            raise KeyboardInterrupt
        write_all(writer, batches)

    with mock.patch.object(LabelWriter, 'write_all', stop_at_second), pytest.raises(KeyboardInterrupt):
        subset_store(store, KEYS, tmp_path / 'stopped')
    again = subset_store(store, KEYS, tmp_path / 'stopped', on_batch=lambda count, total: seen.append((count, total)))
    assert seen == [(8, 24), (8, 24), (8, 24)]
    assert contents(again.path) == contents(whole.path)


def test_an_image_in_two_stores_is_named(tmp_path):
    stores = [make_store(tmp_path / 'a', ['x.jpg', 'y.jpg']), make_store(tmp_path / 'b', ['y.jpg', 'z.jpg'])]
    with pytest.raises(UserError, match=r'y\.jpg is in both .*a and .*b'):
        merge_stores(stores, tmp_path / 'out')


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        ({'annotator': {'name': 'given', 'digest': '1'}}, "annotator .*'digest': '0'.*'digest': '1'"),
        ({'class_names': list('abcdefg')}, 'class_names|class names'),
        ({'view': {'rule': 'squash', 'size': 64}}, "view .*'size': 32.*'size': 64"),
        ({'num_classes': 8}, r'num_classes \(7 and 8\)'),
    ],
)
def test_stores_that_differ_are_refused(tmp_path, changes, said):
    stores = [make_store(tmp_path / 'a', ['x.jpg']), make_store(tmp_path / 'b', ['y.jpg'], **changes)]
    with pytest.raises(UserError, match=f'cannot be merged, as they differ in {said}'):
        merge_stores(stores, tmp_path / 'out')


def test_keys_that_the_store_lacks_are_named(tmp_path):
    with pytest.raises(UserError, match=r'does not hold 1 of the 2 images \(the first: cat/99\.jpg\)'):
        subset_store(make_store(tmp_path / 'all', KEYS), ['cat/1.jpg', 'cat/99.jpg'], tmp_path / 'part')


def test_no_keys_are_refused(tmp_path):
    with pytest.raises(UserError, match=r'No image of .* was chosen'):
        subset_store(make_store(tmp_path / 'all', KEYS), [], tmp_path / 'part')


def test_a_store_is_not_written_over_itself(tmp_path):
    store = make_store(tmp_path / 'all', KEYS)
    with pytest.raises(UserError, match='over itself'):
        subset_store(store, KEYS, tmp_path / 'all')


def test_classes_are_the_folders_of_the_images(tmp_path):
    store = make_store(tmp_path / 'all', KEYS)
    assert keys_of_classes(store, ['dog', 'élan']) == KEYS[8:]
    with pytest.raises(UserError, match='no image in a folder elk'):
        keys_of_classes(store, ['dog', 'elk'])
