"""Whatever becomes of a store's files: opening, verifying, resuming and reading end well or in a sentence."""

import json
import os
import shutil
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.numbered_maps import finished, maps_of, names, open_writer, write_all
from tokenlabel.errors import UserError
from tokenlabel.labels.maintenance.statistics import describe_store, image_labels, store_statistics
from tokenlabel.labels.maintenance.verification import num_files, verify_store
from tokenlabel.labels.store import LabelStore
from tokenlabel.labels.store.shards import read_rows

KEYS = names(9)
VIEW = {'rule': 'native', 'size': 32, 'fill': [1, 2, 3]}
FILES = ['keys.npy', *(f'{name}-0000{shard}.npy' for name in ('scores', 'classes', 'sizes') for shard in (0, 1))]


@pytest.fixture(scope='module')
def sound(tmp_path_factory) -> Path:
    """Nine images in two shards, one without a map."""
    return finished(tmp_path_factory.mktemp('sound') / 'store', KEYS, frozenset([2]), view=VIEW).path


@pytest.fixture(scope='module')
def begun(tmp_path_factory) -> Path:
    """The first of two shards and half of the second are written."""
    path = tmp_path_factory.mktemp('begun') / 'store'
    with open_writer(path, names(16), view=VIEW) as writer:
        for _, batch in zip(range(3), writer.batches(), strict=False):
            writer.write(batch, *maps_of(writer.meta, batch))
    return path


numbers = st.integers() | st.floats() | st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**30, True, 1e308])
json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def paths_in(value: object, prefix: tuple = ()) -> list[tuple]:
    """Where values lie in nested JSON."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [prefix, *(path for key, inner in items for path in paths_in(inner, (*prefix, key)))]


@st.composite
def changed_record(draw, meta: dict) -> str:
    """The text of `meta.json` with some values replaced or removed, in a form that the checksum does not give away."""
    meta = json.loads(json.dumps(meta))
    for _ in range(draw(st.integers(1, 2))):
        *parents, name = draw(st.sampled_from(paths_in(meta)[1:]))
        place = meta
        for parent in parents:
            place = place[parent]
        if draw(st.integers(0, 4)):
            place[name] = draw(json_values)
        else:
            del place[name]
    return json.dumps(meta)


@st.composite
def damaged_bytes(draw, data: bytes) -> bytes:
    """Flipped bits, mostly in the header, and a part cut off, doubled or overwritten."""
    changed = bytearray(data)
    for place in draw(st.lists(st.integers(0, min(127, len(data) - 1)) | st.integers(0, len(data) - 1), max_size=3)):
        changed[place] ^= 1 << draw(st.integers(0, 7))
    begin, length = draw(st.integers(0, len(data))), draw(st.integers(0, 40))
    kind = draw(st.sampled_from(['as it is', 'cut off', 'without', 'doubled', 'overwritten']))
    if kind == 'cut off':
        del changed[begin:]
    elif kind == 'without':
        del changed[begin : begin + length]
    elif kind == 'doubled':
        changed[begin:begin] = changed[begin : begin + length]
    elif kind == 'overwritten':
        changed[begin : begin + length] = draw(st.binary(max_size=length))
    return bytes(changed)


def use(path: Path, keys: list[str]) -> None:
    """All that is done with a store; whatever else than `UserError` comes out is a defect."""
    num_files(path)
    for problem in verify_store(path):
        assert '\n' not in problem
    for act in (open_and_read, statistics, lambda path: resume(path, keys)):
        try:
            act(path)
        except UserError as error:
            assert '\n' not in str(error)


def open_and_read(path: Path) -> None:
    store = LabelStore(path)
    for row in range(len(store)):
        try:
            store[row]
        except UserError as error:
            assert str(path) in str(error)
    read_rows(store, np.arange(len(store)))


def statistics(path: Path) -> None:
    store = LabelStore(path)
    describe_store(store, store_statistics(store, image_labels(store)))


def resume(path: Path, keys: list[str]) -> None:
    # real syncs would take nearly all of the time
    with mock.patch('os.fsync', lambda file: None), open_writer(path, keys, view=VIEW) as writer:
        write_all(writer)
        writer.finalise()


@settings(max_examples=60)
@given(data=st.data())
def test_a_record_of_any_values(sound, data):
    meta = LabelStore(sound).meta
    with tempfile.TemporaryDirectory() as folder:
        path = shutil.copytree(sound, Path(folder) / 'store')
        (path / 'meta.json').write_text(data.draw(changed_record(meta)))
        use(path, KEYS)


@settings(max_examples=60)
@given(file=st.sampled_from(['meta.json', *FILES]), data=st.data())
def test_files_of_any_bytes(sound, file, data):
    with tempfile.TemporaryDirectory() as folder:
        path = shutil.copytree(sound, Path(folder) / 'store')
        (path / file).write_bytes(data.draw(damaged_bytes((sound / file).read_bytes())))
        use(path, KEYS)


@settings(max_examples=40)
@given(data=st.data())
def test_arrays_of_any_type_and_shape(sound, data):
    """With the checksum that they have, so that only their form tells."""
    dtype = data.draw(st.sampled_from(['<f2', '>f2', '<f8', '<u2', '<u4', 'S5', 'U2', 'O', '?', 'M8[s]', 'S0', 'V3']))
    shape = tuple(data.draw(st.lists(st.integers(0, 9), max_size=5)))
    with tempfile.TemporaryDirectory() as folder:
        path = shutil.copytree(sound, Path(folder) / 'store')
        file = data.draw(st.sampled_from(FILES))
        np.save(path / file, np.zeros(shape, dtype), allow_pickle=True)
        use(path, KEYS)


@settings(max_examples=40)
@given(data=st.data())
def test_an_unfinished_store_of_any_bytes(begun, data):
    with tempfile.TemporaryDirectory() as folder:
        path = shutil.copytree(begun, Path(folder) / 'store')
        file = path / data.draw(st.sampled_from(sorted(os.listdir(begun))))
        file.write_bytes(data.draw(damaged_bytes(file.read_bytes() or b'\0')))
        use(path, names(16))
