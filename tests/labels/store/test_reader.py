"""LabelStore: what is written is read, and damage is named."""

import json
import os
import pickle
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.numbered_maps import finished, maps_of, names, open_writer
from tokenlabel.errors import UserError
from tokenlabel.labels.store import LabelStore
from tokenlabel.labels.store.files import file_digest

# Any name a file system may give: everything but NUL, with bytes that are not UTF-8 as lone surrogates.
LETTER = st.characters(exclude_characters='\0', exclude_categories=['Cs']) | st.characters(
    min_codepoint=0xDC80, max_codepoint=0xDCFF, categories=['Cs']
)
NAME = st.text(LETTER, min_size=1, max_size=12).filter(lambda name: '/' not in name and name not in ('.', '..'))


@settings(max_examples=15)
@given(
    keys=st.lists(NAME, min_size=1, max_size=20, unique_by=lambda key: key.encode('utf-8', 'surrogateescape')),
    k=st.integers(1, 5),
    side=st.integers(1, 3),
    num_classes=st.sampled_from([5, 2048, 65_536, 65_537, 3_000_000]),
    batch_size=st.integers(2, 7),
)
def test_what_is_written_is_read(keys, k, side, num_classes, batch_size):
    with tempfile.TemporaryDirectory() as folder:
        options = {'k': k, 'grid': (side, side), 'num_classes': num_classes, 'batch_size': batch_size}
        store = finished(Path(folder) / 'ein Ordner für Karten', keys, **options)
        scores, classes, sizes = maps_of(store.meta, range(len(keys)))
        encoded = [key.encode('utf-8', 'surrogateescape') for key in keys]
        rows = store.indices(keys)
        assert [store.keys[row].encode('utf-8', 'surrogateescape') for row in rows] == encoded
        for row in rows:
            label_map = store[int(row)]
            np.testing.assert_array_equal(label_map.scores, scores[row].astype(np.float16))
            np.testing.assert_array_equal(label_map.classes, classes[row])
            assert store.size(int(row)) == tuple(sizes[row])


def test_checksums_cover_every_other_file(tmp_path):
    store = finished(tmp_path / 'store', names(21))
    files = {file.name: file_digest(file) for file in store.path.iterdir() if file.name != 'meta.json'}
    assert store.meta['checksums'] == files


def test_ids_take_two_bytes_up_to_65536_classes(tmp_path):
    assert finished(tmp_path / 'two', names(1), num_classes=65_536)[0].classes.dtype == np.uint16
    assert finished(tmp_path / 'four', names(1), num_classes=65_537)[0].classes.dtype == np.uint32


def test_images_without_a_map_are_listed_and_not_found(tmp_path):
    with open_writer(tmp_path / 'store', names(8)) as writer:
        for batch in writer.batches():
            scores, classes, sizes = maps_of(writer.meta, batch)
            sizes[1] = 0
            writer.write(batch, scores, classes, sizes)
        writer.finalise()
    store = LabelStore(tmp_path / 'store')
    assert store.meta['skipped'] == ['class/0001.jpg', 'class/0005.jpg']
    with pytest.raises(UserError, match=r'no map of class/0005\.jpg'):
        store[5]
    assert list(store.indices(names(8))) == [0, -1, 2, 3, 4, -1, 6, 7]


def test_a_store_is_read_without_writing(tmp_path):
    store = finished(tmp_path / 'store', names(8))
    opened = []

    def note(event: str, arguments: tuple) -> None:
        if noting and event == 'open' and str(arguments[0]).startswith(str(tmp_path)):
            opened.append(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))

    noting = True
    sys.addaudithook(note)  # there is no way to take it out again
    store = LabelStore(store.path)
    assert store.size(7) == (107, 207)
    assert store[3].scores.shape == (3, 2, 2)
    noting = False
    assert set(opened) == {0}
    assert len(opened) >= 5


def test_unknown_keys_are_not_found(tmp_path):
    store = finished(tmp_path / 'store', names(3))
    assert list(store.indices(['class/0001.jpg', 'class/0001.jp', 'class/0001.jpgx', '', 'zzz'])) == [1, -1, -1, -1, -1]
    assert store.indices([]).shape == (0,)
    assert 'class/0001.jpg' in store.keys
    assert 'class/0009.jpg' not in store.keys


def test_equal_file_names_in_different_folders_are_different_images(tmp_path):
    store = finished(tmp_path / 'store', ['b/1.jpg', 'a/1.jpg'])
    assert list(store.indices(['b/1.jpg', 'a/1.jpg'])) == [1, 0]


def test_a_map_becomes_tensors(tmp_path):
    label_map = finished(tmp_path / 'store', names(3))[2]
    assert torch.from_numpy(label_map.scores).shape == (3, 2, 2)
    assert torch.from_numpy(label_map.classes.astype(np.int64)).dtype == torch.int64


def test_a_squashed_map_covers_its_whole_image(tmp_path):
    label_map = finished(tmp_path / 'store', names(3))[0]
    np.testing.assert_array_equal(label_map.view.matrix, [[1, 0, 0], [0, 1, 0]])


def test_a_store_travels_to_workers_as_its_path(tmp_path):
    store = finished(tmp_path / 'store', names(8))
    travelled = pickle.dumps(store)
    assert len(travelled) < 500
    np.testing.assert_array_equal(pickle.loads(travelled)[7].scores, store[7].scores)


def test_maps_outside_the_store_are_index_errors(tmp_path):
    store = finished(tmp_path / 'store', names(3))
    for index in (-1, 3):
        with pytest.raises(IndexError):
            store[index]


@pytest.mark.parametrize(
    ('field', 'value', 'said'),
    [
        ('version', 2, 'newer than 1: update tokenlabel'),
        ('complete', False, 'unfinished'),
        ('view', {'rule': 'fisheye', 'size': 32}, "View rule 'fisheye' is unknown"),
        ('format', 'cake recipe', 'does not belong to a label store'),
        ('num_images', 9, r'keys\.npy is damaged'),
    ],
)
def test_a_store_that_cannot_be_read_says_why(tmp_path, field, value, said):
    store = finished(tmp_path / 'store', names(8))
    (store.path / 'meta.json').write_text(json.dumps(store.meta | {field: value}))
    with pytest.raises(UserError, match=said):
        LabelStore(store.path)


def test_no_store_is_an_error_that_names_the_tool(tmp_path):
    with pytest.raises(UserError, match=r'No label store at .*annotate'):
        LabelStore(tmp_path / 'nowhere')


def test_a_truncated_shard_is_named(tmp_path):
    store = finished(tmp_path / 'store', names(8))
    file = store.path / 'classes-00000.npy'
    os.truncate(file, file.stat().st_size - 1)
    with pytest.raises(UserError, match=r'classes-00000\.npy is damaged'):
        LabelStore(store.path)[0]


def test_a_truncated_key_file_is_named(tmp_path):
    store = finished(tmp_path / 'store', names(8))
    os.truncate(store.path / 'keys.npy', 130)
    with pytest.raises(UserError, match=r'keys\.npy is damaged'):
        LabelStore(store.path)


def test_a_flipped_byte_in_a_header_is_named(tmp_path):
    store = finished(tmp_path / 'store', names(8))
    file = store.path / 'scores-00000.npy'
    data = bytearray(file.read_bytes())
    data[data.index(b'(8, 3') + 1] ^= 1
    file.write_bytes(data)
    with pytest.raises(UserError, match=r'scores-00000\.npy is damaged'):
        LabelStore(store.path)[0]


def test_a_flipped_byte_in_the_maps_changes_the_checksum(tmp_path):
    store = finished(tmp_path / 'store', names(8))
    file = store.path / 'scores-00000.npy'
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    assert file_digest(file) != store.meta['checksums'][file.name]
