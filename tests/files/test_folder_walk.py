"""Which files of a folder count: links, hidden names, what is skipped, the order."""

import errno
import logging
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenlabel.errors import UserError
from tokenlabel.files.folder_walk import find_files, is_hidden, natural_key, report_skipped


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b'')
    return root


def found(root: Path, **options) -> list[str]:
    return find_files(root, ['.jpg', '.png'], **options).names


def test_files_are_found_by_suffix_in_any_case_and_natural_order(tmp_path):
    make(tmp_path, 'b/10.jpg', 'b/2.JPG', 'a.PNG', 'b/notes.txt')
    walk = find_files(tmp_path, ['.jpg', '.png'])
    assert walk.names == ['a.PNG', 'b/2.JPG', 'b/10.jpg']
    assert str(walk.skipped) == '1 of other kinds (such as b/notes.txt)'


def test_linked_folders_and_files_are_followed(tmp_path):
    make(tmp_path / 'elsewhere', 'city/1.jpg', '2.jpg')
    make(tmp_path / 'images', 'town/3.jpg')
    (tmp_path / 'images/city').symlink_to('../elsewhere/city')
    (tmp_path / 'images/town/2.jpg').symlink_to(tmp_path / 'elsewhere/2.jpg')
    assert found(tmp_path / 'images') == ['city/1.jpg', 'town/2.jpg', 'town/3.jpg']


@pytest.mark.parametrize('target', ['.', '..', '../a'])
def test_links_that_go_round_in_a_circle_are_named(tmp_path, target):
    make(tmp_path, 'a/1.jpg')
    (tmp_path / 'a/loop').symlink_to(target)
    walk = find_files(tmp_path, ['.jpg'])
    assert walk.names == ['a/1.jpg']
    assert str(walk.skipped) == '1 links to a parent folder (such as a/loop)'


def test_two_folders_that_link_to_each_other_end(tmp_path):
    make(tmp_path, 'a/1.jpg', 'b/2.jpg')
    (tmp_path / 'a/b').symlink_to('../b')
    (tmp_path / 'b/a').symlink_to('../a')
    assert found(tmp_path) == ['a/1.jpg', 'a/b/2.jpg', 'b/2.jpg', 'b/a/1.jpg']


def test_links_that_double_with_each_level_are_refused(tmp_path):
    for level in range(40):
        make(tmp_path, f'{level}/x.jpg')
        for name in 'ab':
            (tmp_path / f'{level}' / name).symlink_to(f'../{level + 1}')
    (tmp_path / '40').mkdir()
    with pytest.raises(UserError, match='More than 1000 links lead to the folder'):
        found(tmp_path)


@pytest.mark.parametrize(
    'name',
    [
        '._x.jpg',
        '.ipynb_checkpoints/x-checkpoint.jpg',
        'cat/.cache/x.jpg',
        '__MACOSX/cat/x.jpg',
        'cat/@eaDir/x.jpg/SYNOPHOTO_THUMB_M.jpg',
        '$RECYCLE.BIN/x.jpg',
    ],
)
def test_hidden_names_are_passed_over_and_named(tmp_path, name):
    walk = find_files(make(tmp_path, 'cat/1.jpg', name, '.DS_Store', 'cat/Thumbs.db'), ['.jpg'])
    assert walk.names == ['cat/1.jpg']
    assert is_hidden(name) and str(walk.skipped).startswith('1 hidden (such as ')


def test_a_root_of_a_hidden_name_is_searched(tmp_path):
    assert found(make(tmp_path / '.cache/images', 'a.jpg')) == ['a.jpg']


def test_broken_links_are_named_whatever_they_are_called(tmp_path):
    make(tmp_path, '1.jpg')
    (tmp_path / '2.jpg').symlink_to('gone')
    (tmp_path / 'city').symlink_to('/gone/away')
    (tmp_path / 'self.jpg').symlink_to('self.jpg')
    walk = find_files(tmp_path, ['.jpg'])
    assert walk.names == ['1.jpg'] and str(walk.skipped) == '3 broken links (such as 2.jpg)'


def test_a_pipe_is_named_and_not_waited_for(tmp_path):
    make(tmp_path, '1.jpg')
    os.mkfifo(tmp_path / '2.jpg')
    walk = find_files(tmp_path, ['.jpg'])
    assert walk.names == ['1.jpg'] and str(walk.skipped) == '1 not regular files (such as 2.jpg)'


def test_a_folder_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
    make(tmp_path, 'cat/1.jpg', 'dog/1.jpg')
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith('dog'):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', refuse)
    with pytest.raises(UserError, match=r'folder .*dog cannot be read \(permission denied\): check its permissions'):
        found(tmp_path)


def test_folders_of_results_are_left_out_however_they_are_named(tmp_path):
    make(tmp_path, 'a/1.jpg', 'out/2.jpg')
    (tmp_path / 'alias').symlink_to('out')
    assert found(tmp_path, without=[tmp_path / 'alias', tmp_path / 'missing']) == ['a/1.jpg']


def test_folders_without_files_are_known(tmp_path):
    make(tmp_path, 'a/1.jpg', 'b/c/notes.txt', 'd/e/2.jpg')
    (tmp_path / 'd/empty').mkdir()
    assert find_files(tmp_path, ['.jpg']).empty_folders() == ['b', 'd/empty']


@pytest.mark.parametrize(
    'name',
    [
        'new\nline.jpg',
        'tab\t.jpg',
        '-rf.jpg',
        ' space .jpg',
        'a,"b";.jpg',
        '\u202eright.jpg',
        '\U0001f408.jpg',
        'caf\udce9.jpg',
        'x' * 251 + '.jpg',
        '1\u00b2.jpg',
        '$x$.jpg',
        'a\\b.jpg',
    ],
)
def test_any_name_is_found(tmp_path, name):
    assert found(make(tmp_path, f'c/{name}')) == [f'c/{name}']


def test_what_is_passed_over_is_logged_once(tmp_path, caplog):
    walk = find_files(make(tmp_path, 'a.jpg', '._caf\udce9.jpg'), ['.jpg'])
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            report_skipped(tmp_path, len(walk.names), walk.skipped)
    line = f'{tmp_path}: 1 images; skipped 1 hidden (such as ._caf\\xe9.jpg).'
    assert [record.getMessage() for record in caplog.records] == [line]


def test_other_ranks_log_nothing(tmp_path, caplog, monkeypatch):
    monkeypatch.setenv('RANK', '1')
    walk = find_files(make(tmp_path, '.a.jpg'), ['.jpg'])
    report_skipped(tmp_path, 0, walk.skipped)
    assert not caplog.records


def timms_natural_key(name: str) -> list:
    """`timm.utils.misc.natural_key`, by which timm numbers classes."""
    return [int(part) if part.isdigit() else part for part in re.split(r'(\d+)', name.lower())]


@given(st.lists(st.text('aB1290_/é', min_size=1, max_size=8), unique_by=lambda name: tuple(timms_natural_key(name))))
def test_the_order_is_timms_where_that_is_one(names):
    assert sorted(names, key=natural_key) == sorted(names, key=timms_natural_key)


def test_names_that_differ_in_case_alone_have_an_order():
    assert sorted(['b', 'a', 'A', 'a2', 'A10'], key=natural_key) == ['A', 'a', 'a2', 'A10', 'b']
