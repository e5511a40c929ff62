"""Arrays of a store that are not what its record says, whoever opens it."""

import os
import shutil
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from tests.numbered_maps import finished, maps_of, names, open_writer, write_all
from tokenlabel.errors import UserError
from tokenlabel.labels.maintenance.rewrite import merge_stores, subset_store
from tokenlabel.labels.maintenance.statistics import store_statistics
from tokenlabel.labels.maintenance.verification import verify_store
from tokenlabel.labels.store import LabelStore

FILES = ['keys.npy', 'scores-00001.npy', 'classes-00000.npy', 'sizes-00001.npy']


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr('os.fsync', lambda file: None)


@pytest.fixture(scope='module')
def sound(tmp_path_factory) -> LabelStore:
    """Nine images in two shards."""
    return finished(tmp_path_factory.mktemp('sound') / 'store', names(9))


@pytest.fixture
def store(sound, tmp_path) -> LabelStore:
    return LabelStore(shutil.copytree(sound.path, tmp_path / 'store'))


def save(path: Path, array: np.ndarray) -> None:
    with open(path, 'wb') as file:
        np.lib.format.write_array(file, array)


def change_header(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new.ljust(len(old)), 1))


def other_format(path: Path) -> None:
    array = np.load(path)
    with open(path, 'wb') as file:
        np.lib.format.write_array(file, array, version=(3, 0))


def fortran(path: Path) -> None:
    change_header(path, b"'fortran_order': False", b"'fortran_order': True")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link_to_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path.with_name('pipe'))
    path.symlink_to('pipe')


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE = {
    'missing': Path.unlink,
    'empty': lambda path: path.write_bytes(b''),
    'short': lambda path: os.truncate(path, path.stat().st_size - 1),
    'long': lambda path: os.truncate(path, path.stat().st_size + 1),
    'header alone': lambda path: os.truncate(path, 100),
    'text': lambda path: path.write_text('not found'),
    'scalar': lambda path: save(path, np.array(5.0)),
    'objects': lambda path: np.save(path, np.array([{}, None]), allow_pickle=True),
    'structured': lambda path: save(path, np.zeros(9, [('a', '<f2')])),
    'another type': lambda path: save(path, np.load(path).astype('S12' if path.name != 'keys.npy' else 'U12')),
    'another size': lambda path: save(path, np.load(path)[:-1]),
    'more dimensions': lambda path: save(path, np.load(path)[None]),
    'Fortran order': fortran,
    'another format': other_format,
    'a header that does not end': lambda path: change_header(path, b"'shape': (", b"'shape': (((((((((("),
    'a header of brackets': lambda path: change_header(path, b"{'descr'", b'((((((((('),
    'a header of a number': lambda path: change_header(path, b"'descr'", b'0x1p0L '),
    'no magic': lambda path: change_header(path, b'\x93NUMPY', b'PK\3\4'),
    'a pipe': pipe,
    'a link to a pipe': link_to_a_pipe,
    'a link to nothing': lambda path: (path.unlink(), path.symlink_to('nowhere')),
    'a folder': folder,
}


@pytest.mark.parametrize('file', FILES)
@pytest.mark.parametrize('damage', DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_named_in_one_sentence(store, file, damage):
    damage(store.path / file)
    for use in (LabelStore, lambda path: open_writer(path, names(9))):
        with pytest.raises(UserError) as raised:
            use(store.path)
        assert str(store.path / file) in str(raised.value)
        assert '\n' not in str(raised.value)
    problems = verify_store(store.path)
    assert problems and all(str(store.path / file) in problem for problem in problems if 'pipe' not in problem)


def test_big_endian_scores_are_refused(store):
    path = store.path / 'scores-00000.npy'
    save(path, np.load(path).astype('>f2'))
    with pytest.raises(UserError, match=r'scores-00000\.npy is damaged: >f2'):
        LabelStore(store.path)


def test_a_header_that_promises_more_than_memory_holds_is_refused(store):
    change_header(store.path / 'keys.npy', b'(9,), }' + b' ' * 12, b'(999999999999,), }')
    with pytest.raises(UserError, match=r'keys\.npy is damaged: it has \d+ bytes, where \d+ belong'):
        LabelStore(store.path)


def test_a_file_that_may_not_be_read_is_not_called_damaged(store):
    opened = os.open

    def refuse(path, *arguments):
        if str(path).endswith('scores-00001.npy'):
            raise PermissionError(13, 'Permission denied')
        return opened(path, *arguments)

    with mock.patch('tokenlabel.files.writing.os.open', refuse):
        with pytest.raises(UserError, match=r'scores-00001\.npy cannot be read \(permission denied\): check its perm'):
            LabelStore(store.path)
        assert all('cannot be read (permission denied)' in problem for problem in verify_store(store.path))


def test_a_file_that_shrinks_before_it_is_read_is_named(store):
    os.truncate(store.path / 'scores-00001.npy', 200)
    with pytest.raises(UserError, match=r'scores-00001\.npy is damaged'):
        store[8]


def test_links_to_sound_files_are_followed(store, tmp_path):
    shutil.copytree(store.path, tmp_path / 'elsewhere')
    for file in tmp_path.joinpath('elsewhere').iterdir():
        if file.name.startswith('scores'):
            (store.path / file.name).unlink()
            (store.path / file.name).symlink_to(file)
    assert verify_store(store.path) == []
    assert len(LabelStore(store.path)) == 9


def test_a_further_shard_is_a_problem(store):
    shutil.copy(store.path / 'scores-00001.npy', store.path / 'scores-00002.npy')
    assert verify_store(store.path) == [
        f'{store.path / "scores-00002.npy"} is not a file of this store, which has 2 shards: remove it.'
    ]


def keys_of(store: LabelStore, keys: list[bytes]) -> None:
    save(store.path / 'keys.npy', np.array(keys, 'S'))


@pytest.mark.parametrize(
    'key',
    [
        *(b'/etc/passwd', b'../x.jpg', b'..', b'a/../../x.jpg', b'a/..', b'.', b'./x.jpg', b'a/./x.jpg', b'a//x.jpg'),
        *(b'a/', b'/', b'a\0b.jpg', b'a/.', b'//', b'', b'\0a'),
    ],
)
def test_a_key_that_is_no_path_below_a_folder_is_refused(store, key):
    keys_of(store, sorted([key, *(name.encode() for name in names(8))]))
    with pytest.raises(UserError, match=r'keys\.npy'):
        LabelStore(store.path)
    assert any('keys.npy' in problem for problem in verify_store(store.path))


@pytest.mark.parametrize('key', [b'...', b'.a', b'..a', b'a..', b'a/..b', b'a/b..', b'a/.b/.c.', b'\xff\xfe.jpg', b' '])
def test_a_key_that_looks_like_one_is_taken(store, key):
    keys_of(store, sorted([key, *(name.encode() for name in names(8))]))
    assert key.decode('utf-8', 'surrogateescape') in LabelStore(store.path).keys


@pytest.mark.parametrize(
    ('key', 'complaint'),
    [
        ('/etc/x.jpg', 'The image list contains the path'),
        ('../x.jpg', 'The image list contains the path'),
        ('a/../x.jpg', 'The image list contains the path'),
        ('./x.jpg', 'The image list names .* in normal form'),
        ('a\0.jpg', 'The image list names .* which no file can be called'),
        ('\ud800.jpg', 'The image list names .* which no file can be called'),
    ],
)
def test_a_store_is_not_begun_with_such_keys(tmp_path, key, complaint):
    with pytest.raises(UserError, match=complaint):
        open_writer(tmp_path / 'store', ['a.jpg', key])
    assert not (tmp_path / 'store').exists()


@pytest.mark.parametrize('order', [[1, 0, *range(2, 9)], [0, 0, *range(2, 9)]])
def test_keys_out_of_order_or_twice_are_refused(store, order):
    keys_of(store, [names(9)[i].encode() for i in order])
    with pytest.raises(UserError, match=r'keys\.npy is not sorted, or names an image twice: class/0000\.jpg'):
        LabelStore(store.path)


class TestMapsThatCannotBeUsed:
    """Each names file and image when it is read, alone or in bulk."""

    @pytest.fixture(params=['nan', 'infinite', 'class', 'size'])
    def damaged(self, request, store) -> tuple[LabelStore, str]:
        name, value, said = {
            'nan': ('scores', np.nan, 'has scores that are not finite'),
            'infinite': ('scores', np.inf, 'has scores that are not finite'),
            'class': ('classes', 7, 'names (class 7 of 7|a class outside the 7)'),
            'size': ('sizes', [5, 0], '(is 5 x 0 pixels|has a width but no height)'),
        }[request.param]
        array = np.load(store.path / f'{name}-00000.npy', mmap_mode='r+')
        array[(3, 0, 1, 1) if array.ndim == 4 else 3] = value
        array.flush()
        return LabelStore(store.path), rf'{name}-00000\.npy is damaged: class/0003\.jpg {said}'

    def test_one(self, damaged):
        store, said = damaged
        assert store[2] and store[4]
        with pytest.raises(UserError, match=said):
            store[3]

    def test_in_a_subset_or_a_merged_store(self, damaged, tmp_path):
        store, said = damaged
        with pytest.raises(UserError, match=said):
            subset_store(store, names(9), tmp_path / 'part')
        with pytest.raises(UserError, match=said):
            merge_stores([store, finished(tmp_path / 'other', ['other.jpg'])], tmp_path / 'merged')

    def test_in_statistics(self, damaged):
        store, said = damaged
        with pytest.raises(UserError, match=said):
            store_statistics(store, np.full(9, -1))


class TestUnfinished:
    """A store that is being written, damaged between two runs."""

    @pytest.fixture
    def begun(self, tmp_path) -> Path:
        """The first of two shards is done, of the second nothing."""
        with open_writer(tmp_path / 'store', names(9)) as writer:
            for _, batch in zip(range(2), writer.batches(), strict=False):
                writer.write(batch, *maps_of(writer.meta, batch))
        return tmp_path / 'store'

    def resume(self, path: Path) -> None:
        with open_writer(path, names(9)) as writer:
            write_all(writer)
            writer.finalise()

    @pytest.mark.parametrize('damage', ['missing', 'empty', 'short', 'header alone', 'text', 'scalar', 'a pipe'])
    def test_a_shard_that_was_done_is_named_with_what_to_remove(self, begun, damage):
        DAMAGE[damage](begun / 'classes-00000.npy')
        with pytest.raises(UserError, match=r'classes-00000\.npy .*: remove .*progress-00000 to have'):
            self.resume(begun)

    def test_what_the_sentence_says_helps(self, begun, tmp_path):
        (begun / 'classes-00000.npy').write_bytes(b'')
        (begun / 'progress-00000').unlink()
        self.resume(begun)
        finished(tmp_path / 'straight', names(9))
        for file in (tmp_path / 'straight').iterdir():
            assert (begun / file.name).read_bytes() == file.read_bytes()

    @pytest.mark.parametrize('count', [3, 5000])
    def test_more_progress_than_a_shard_has_batches_is_refused(self, begun, count):
        (begun / 'progress-00000').write_bytes(b'.' * count)
        with pytest.raises(
            UserError, match=rf'progress-00000 is damaged \({count} bytes, where at most 2 bytes belong'
        ):
            self.resume(begun)

    @pytest.mark.parametrize('change', [pipe, folder])
    def test_a_progress_file_that_is_none_is_refused(self, begun, change):
        change(begun / 'progress-00000')
        with pytest.raises(UserError, match=r'progress-00000'):
            self.resume(begun)

    def test_a_lock_that_is_a_pipe_is_not_waited_for(self, begun):
        (begun / 'lock').unlink(missing_ok=True)
        os.mkfifo(begun / 'lock')
        self.resume(begun)
        assert verify_store(begun) == []

    def test_a_link_out_of_the_store_is_not_written_through(self, begun, tmp_path):
        (tmp_path / 'precious').write_text('precious')
        (begun / 'scores-00001.npy').symlink_to(tmp_path / 'precious')
        with pytest.raises(UserError, match='symbolic link'):
            self.resume(begun)
        assert (tmp_path / 'precious').read_text() == 'precious'

    def test_a_record_that_vanishes_is_told(self, begun):
        with open_writer(begun, names(9)) as writer:
            (begun / 'meta.json').unlink()
            with pytest.raises(UserError, match=r'meta\.json has been removed'):
                list(writer.batches())

    def test_damaged_keys_are_named(self, begun):
        DAMAGE['empty'](begun / 'keys.npy')
        with pytest.raises(UserError, match=r'keys\.npy is damaged'):
            self.resume(begun)
