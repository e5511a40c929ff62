"""`meta.json`: any change to it is noticed, and what no store has is one sentence that names the file."""

import json
import os
import shutil
from unittest import mock

import pytest

from tests.numbered_maps import finished, names
from tokenlabel.errors import UserError
from tokenlabel.labels.maintenance.verification import lacks_checksum, verify_store
from tokenlabel.labels.store import LabelStore
from tokenlabel.labels.store.meta import MetaFile


@pytest.fixture(scope='module')
def sound(tmp_path_factory) -> LabelStore:
    """Nine images in two shards, the third without a map; every kind of value occurs in its record."""
    options = {
        'annotator': {'name': 'tiny', 'digest': 'abc', 'mean': [0.5, 1e-05], 'tta': None},
        'view': {'rule': 'center-crop', 'size': 32, 'crop_pct': 0.875},
        'class_names': ['a', 'é', 'c', 'd', 'e', 'f', 'g'],
    }
    return finished(tmp_path_factory.mktemp('sound') / 'store', names(9), frozenset([2]), **options)


@pytest.fixture
def store(sound, tmp_path) -> LabelStore:
    return LabelStore(shutil.copytree(sound.path, tmp_path / 'store'))


def write(store: LabelStore, text: str | bytes) -> None:
    (store.path / 'meta.json').write_bytes(text if isinstance(text, bytes) else text.encode())


def write_earlier(store: LabelStore, **fields) -> None:
    """As an earlier version wrote it, without a checksum, so that the fields alone tell what is wrong."""
    write(store, json.dumps(store.meta | fields, indent=2) + '\n')


def assert_refused(store: LabelStore, said: str) -> None:
    with pytest.raises(UserError, match=rf'meta\.json.*{said}') as raised:
        LabelStore(store.path)
    assert '\n' not in str(raised.value)
    assert len(str(raised.value)) < 1000
    assert verify_store(store.path) == [str(raised.value)]


def test_every_flip_of_a_bit_is_noticed(sound, tmp_path):
    """It is refused when the store is opened, or says the same in another text, which the verification tells."""
    file, data = tmp_path / 'meta.json', (sound.path / 'meta.json').read_bytes()
    assert MetaFile.parse(file, data) == MetaFile(sound.meta, has_checksum=True, as_written=True)
    same = []
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            found = MetaFile.parse(file, bytes(flipped))
        except UserError:
            continue
        assert found == MetaFile(sound.meta, has_checksum=True, as_written=False), flipped
        same.append(bytes(flipped))
    assert len(same) == 2, 'the e of a number, and that of an escaped é, in capitals'
    for flipped in same:
        file.write_bytes(flipped)
        assert 'has changed since it was written, though it says the same' in verify_store(tmp_path)[0]


def test_a_store_of_an_earlier_version_opens_and_verifies(store):
    assert not lacks_checksum(store.path)
    write_earlier(store)
    assert LabelStore(store.path).meta == store.meta
    assert verify_store(store.path) == []
    assert lacks_checksum(store.path)


def test_a_change_of_the_contents_alone_is_told_as_a_change(store):
    text = (store.path / 'meta.json').read_text()
    write(store, text.replace('"tiny"', '"tidy"'))
    assert_refused(store, 'has changed since it was written')


@pytest.mark.parametrize('checksum', [None, 5, [], 'abc', '0' * 64, True])
def test_another_checksum_is_a_change(store, checksum):
    write(store, json.dumps(store.meta | {'checksum': checksum}))
    assert_refused(store, 'has changed since it was written')


WRONG = {
    'version': [-1, 0, 1.0, True, '1', None, [1], 10**400],
    'annotator': [None, [], 'tiny', 5, {'mean': [1e999]}, {'a': json.loads('[' * 40 + ']' * 40)}],
    'view': [
        None,
        'squash',
        {},
        {'rule': ['squash']},
        {'rule': 'fisheye', 'size': 32},
        {'rule': 'squash'},
        {'rule': 'squash', 'size': -3},
        {'rule': 'squash', 'size': 32.0},
        {'rule': 'squash', 'size': True},
        {'rule': 'squash', 'size': 10**30},
        {'rule': 'squash', 'size': 32, 'crop_pct': 1.0},
        {'rule': 'center-crop', 'size': 32, 'crop_pct': 0},
        {'rule': 'center-crop', 'size': 32, 'crop_pct': -0.5},
        {'rule': 'center-crop', 'size': 32, 'crop_pct': 1e-300},
        {'rule': 'center-crop', 'size': 32, 'crop_pct': 1e999},
        {'rule': 'center-crop', 'size': 32, 'crop_pct': '1'},
        {'rule': 'native', 'size': 32, 'fill': [1, 2]},
        {'rule': 'native', 'size': 32, 'fill': [1, 2, 300]},
        {'rule': 'native', 'size': 32, 'fill': 'red'},
        {'rule': 'squash', 'size': json.loads('[' * 200 + ']' * 200)},
    ],
    'num_classes': [0, -7, 7.0, '7', None, True, 2**40, 8, 6],
    'class_names': [[], ['a'], 'abcdefg', [1, 2, 3, 4, 5, 6, 7], {}, 7],
    'k': [0, -1, 8, 3.0, None, True, '3', 10**400],
    'grid': [[], [2], [0, 0], [2, 2, 2], 2, None, [2.0, 2], [2, -2], [10**9, 10**9], '22', [True, 2]],
    'num_images': [0, -1, 10**18, 9.0, '9', None, True],
    'batch_size': [0, -4, 4.0, '4', None, 3, 10**18],
    'images_per_shard': [0, -8, 8.0, None, 10, 10**18, 4],
    'complete': ['no', 0, 1, None, 'true', []],
    'skipped': [None, {}, 'class/0002.jpg', [2], [None], ['nowhere.jpg'], ['class/0002.jpg'] * 2, ['\ud800'], ['']],
    'checksums': [None, [], 'x', {}, {'keys.npy': 5}],
}


@pytest.mark.parametrize(
    ('field', 'value'), [pytest.param(field, value, id=f'{field}-{i}') for field in WRONG for i, value in
                         enumerate(WRONG[field])]
)  # fmt: skip
def test_a_wrong_value_is_refused(store, field, value):
    write_earlier(store, **{field: value})
    assert_refused(store, '')


@pytest.mark.parametrize('field', ['format', *WRONG])
def test_a_missing_field_is_named(store, field):
    fields = {name: value for name, value in store.meta.items() if name != field}
    write(store, json.dumps(fields))
    assert_refused(store, 'does not belong to a label store' if field == 'format' else f'lacks {field}')


def test_a_field_that_no_store_has_is_named(store):
    write_earlier(store, chcksum='0' * 64)
    assert_refused(store, "has the field 'chcksum'")


@pytest.mark.parametrize('name', ['scores-00002.npy', '../../etc/passwd', ''])
def test_a_checksum_of_a_file_that_the_store_has_not_is_named(store, name):
    write_earlier(store, checksums=store.meta['checksums'] | {name: '0' * 64})
    assert_refused(store, f'has a checksum of {name}')


@pytest.mark.parametrize('digest', [None, 5, '', '0' * 63, 'G' * 64, '0' * 65])
def test_a_checksum_that_is_none_is_refused(store, digest):
    write_earlier(store, checksums=store.meta['checksums'] | {'keys.npy': digest})
    assert_refused(store, 'checksums is')


@pytest.mark.parametrize(
    'text',
    [
        '',
        'null',
        '[]',
        '"text"',
        '5',
        '{',
        '{}',
        '[' * 200_000,
        '{"a":' * 200_000,
        '{"format": NaN}',
        '{"format": 1' + '0' * 5000 + '}',
        b'\xff\xfe{\0}\0',
        b'{"format": "\xe9"}',
        b'\0' * 100,
    ],
    ids=lambda text: repr(text[:12]),
)
def test_what_is_no_such_file_is_refused(store, text):
    write(store, text)
    assert_refused(store, '')


def test_a_name_that_occurs_twice_is_refused(store):
    text = (store.path / 'meta.json').read_text()
    write(store, text.replace('"k": 3,', '"k": 3, "k": 3,'))
    assert_refused(store, 'a name occurs twice')


def test_infinity_is_refused(store):
    write(store, (store.path / 'meta.json').read_text().replace('1e-05', '-Infinity'))
    assert_refused(store, '-Infinity is not valid JSON')


def test_a_byte_order_mark_is_read_and_told_by_the_verification(store):
    write(store, b'\xef\xbb\xbf' + (store.path / 'meta.json').read_bytes())
    assert LabelStore(store.path).meta == store.meta
    assert len(verify_store(store.path)) == 1


def test_a_pipe_is_not_waited_for(store):
    (store.path / 'meta.json').unlink()
    os.mkfifo(store.path / 'meta.json')
    assert_refused(store, r'cannot be read \(not a regular file\)')


def test_a_folder_is_no_such_file(store):
    (store.path / 'meta.json').unlink()
    (store.path / 'meta.json').mkdir()
    assert_refused(store, r'cannot be read \(is a directory\)')


def test_a_file_that_may_not_be_read_is_not_called_damaged(store):
    with mock.patch('tokenlabel.files.writing.os.open', side_effect=PermissionError(13, 'Permission denied')):
        assert_refused(store, r'cannot be read \(permission denied\): check its permissions')
