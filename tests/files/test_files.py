"""Files are whole or not there."""

import errno
import json
import os

import pytest

from tokenlabel.errors import UserError
from tokenlabel.files.reading import (
    open_regular,
    printable,
    read_json,
    read_lines,
    read_names,
    read_text,
    relative_name,
)
from tokenlabel.files.writing import is_temporary, unfinished, write_atomically, write_json


def test_text_and_bytes_are_written_into_a_folder_made_for_them(tmp_path):
    write_atomically(tmp_path / 'new/text', 'grüß')
    write_atomically(tmp_path / 'new/bytes', b'\x00')
    assert (tmp_path / 'new/text').read_text('utf-8') == 'grüß'
    assert (tmp_path / 'new/bytes').read_bytes() == b'\x00'


def test_a_failed_write_keeps_the_older_file_and_leaves_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / 'report.json'
    write_atomically(path, 'older')

    def fail(source, target):
        assert is_temporary(source)
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(os, 'replace', fail)
    with pytest.raises(UserError, match=r'Cannot write to .*report.json \(No space left on device\): make room'):
        write_atomically(path, 'newer')
    assert path.read_text() == 'older'
    assert os.listdir(tmp_path) == ['report.json']


def test_numbers_that_json_has_not_are_null(tmp_path):
    write_json(tmp_path / 'new/metrics.json', {'nan': [float('nan'), 1.5], 'infinite': (float('inf'), 'text', None)})
    assert json.loads((tmp_path / 'new/metrics.json').read_text()) == {
        'nan': [None, 1.5],
        'infinite': [None, 'text', None],
    }


def test_a_place_that_cannot_be_written_to_is_one_sentence(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match=r'Cannot write to .*file/report\.json'):
        write_json(tmp_path / 'file/report.json', {})


def test_a_name_as_long_as_names_can_be_is_written(tmp_path):
    path = tmp_path / ('n' * 251 + '.txt')
    write_atomically(path, 'text')
    assert path.read_text() == 'text'


def test_files_of_one_folder_that_are_unfinished_at_once_do_not_meet(tmp_path):
    with unfinished(tmp_path / 'a.png') as one, unfinished(tmp_path / 'b.png') as other:
        one.write_text('a')
        other.write_text('b')
        assert one.suffix == '.png' and is_temporary(one)
    assert [(tmp_path / f'{name}.png').read_text() for name in 'ab'] == ['a', 'b']


def test_a_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    with pytest.raises(OSError, match='not a regular file'):
        open_regular(tmp_path / 'pipe')
    with pytest.raises(UserError, match=r'The list .*pipe cannot be read \(not a regular file\): replace or remove it'):
        read_text(tmp_path / 'pipe', 'The list')


@pytest.mark.parametrize('text', [b'one\ntwo', b'\xef\xbb\xbfone\r\n two \r\n\r\n', b'one\rtwo\n\n\n'])
def test_text_of_any_editor_is_read_alike(tmp_path, text):
    (tmp_path / 'names.txt').write_bytes(text)
    assert read_lines(tmp_path / 'names.txt') == ['one', 'two']


def test_a_blank_line_between_others_counts(tmp_path):
    (tmp_path / 'names.txt').write_text('one\n\nthree\n')
    assert read_lines(tmp_path / 'names.txt') == ['one', '', 'three']


@pytest.mark.parametrize(
    ('content', 'words'), [(b'gr\xfc\xdf', 'not UTF-8 text'), (None, r'\(no such file or directory\): check the path')]
)
def test_text_that_cannot_be_read_is_one_sentence(tmp_path, content, words):
    if content is not None:
        (tmp_path / 'names.txt').write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_text(tmp_path / 'names.txt')


def test_names_of_files_may_be_any_bytes_where_they_are_listed(tmp_path):
    (tmp_path / 'keys.txt').write_bytes(b'caf\xe9.jpg\n')
    assert read_lines(tmp_path / 'keys.txt', errors='surrogateescape') == ['caf\udce9.jpg']
    assert printable('caf\udce9 é\ud800.jpg') == 'caf\\xe9 é\\ud800.jpg'


def test_names_of_classes_have_no_gap(tmp_path):
    (tmp_path / 'names.txt').write_text('one\n\nthree\n')
    with pytest.raises(UserError, match=r'The list .*names\.txt is blank in line 2'):
        read_names(tmp_path / 'names.txt', 'The list')


@pytest.mark.parametrize('content', ['{', '[' * 200_000, '9' * 5000, ''])
def test_what_is_no_json_is_one_sentence(tmp_path, content):
    (tmp_path / 'x.json').write_text(content)
    with pytest.raises(UserError, match=r'The file .*x\.json is not valid JSON'):
        read_json(tmp_path / 'x.json')


@pytest.mark.parametrize('name', ['', '.', '/etc/passwd', '../x', 'a/../../x', 'a\0b', '//x', '..\\x'])
def test_names_that_could_lie_elsewhere_are_refused(name):
    with pytest.raises(UserError, match='leads outside its folder'):
        relative_name(name, 'archive.tar')


@pytest.mark.parametrize('name', ['a/b.jpg', './a/b.jpg', 'a//b.jpg', 'a/./b.jpg'])
def test_names_below_a_folder_are_one_name_however_written(name):
    assert relative_name(name, 'archive.tar') == 'a/b.jpg'
