"""Indices of tars that were read before."""

import os

import pytest

from tests.data.test_readers import PICTURES, write_tar
from tokenlabel.data.tar import cache
from tokenlabel.data.tar.cache import cached_index
from tokenlabel.data.tar.index import index_tar

SUFFIXES = ('.jpg', '.png')


@pytest.fixture
def tar(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, 'LEAST', 1)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    files = PICTURES | {'bl\udcffm.jpg': b'x', 'a.cls': b'3', 'a.jpg': b'y', 'notes.txt': b'', '.hidden.jpg': b''}
    return write_tar(tmp_path / 'images.tar', files)


def files_of(tmp_path) -> list:
    return list((tmp_path / 'cache/tokenlabel/tars').iterdir())


def parts(index) -> tuple:
    return *index[:4], str(index.skipped)


def test_the_second_reading_is_the_first(tar, tmp_path, monkeypatch):
    first = cached_index(tar, SUFFIXES)
    assert parts(first) == parts(index_tar(tar, SUFFIXES)) and first.labels == {'a': '3'}
    monkeypatch.setattr(cache, 'index_tar', None)
    assert parts(cached_index(tar, SUFFIXES)) == parts(first)
    assert len(files_of(tmp_path)) == 1


def test_a_tar_that_has_changed_is_read_again(tar):
    cached_index(tar, SUFFIXES)
    write_tar(tar, {'other.jpg': b'z'})
    assert cached_index(tar, SUFFIXES).names == ['other.jpg']


@pytest.mark.parametrize('damage', ['cut', 'flip', 'other'])
def test_a_damaged_cache_is_made_anew(tar, tmp_path, damage):
    expected = parts(cached_index(tar, SUFFIXES))
    (file,) = files_of(tmp_path)
    data = bytearray(file.read_bytes())
    data[200] ^= 1
    file.write_bytes({'cut': data[:100], 'flip': data, 'other': b'no zip'}[damage])
    assert parts(cached_index(tar, SUFFIXES)) == expected


def test_a_folder_that_cannot_be_written_to_costs_time_alone(tar, tmp_path, monkeypatch):
    (tmp_path / 'file').touch()
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    assert parts(cached_index(tar, SUFFIXES)) == parts(index_tar(tar, SUFFIXES))


def test_small_tars_are_not_kept(tar, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, 'LEAST', 1000)
    cached_index(tar, SUFFIXES)
    assert not os.path.exists(tmp_path / 'cache')
