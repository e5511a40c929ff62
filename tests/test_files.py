"""Files are whole or not there."""

import json
import os

import pytest

from tokenlabel.files import is_temporary, write_atomically, write_json


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
        raise OSError('disk full')

    monkeypatch.setattr(os, 'replace', fail)
    with pytest.raises(OSError, match='disk full'):
        write_atomically(path, 'newer')
    assert path.read_text() == 'older'
    assert os.listdir(tmp_path) == ['report.json']


def test_numbers_that_json_has_not_are_null(tmp_path):
    write_json(tmp_path / 'new/metrics.json', {'nan': [float('nan'), 1.5], 'infinite': (float('inf'), 'text', None)})
    assert json.loads((tmp_path / 'new/metrics.json').read_text()) == {
        'nan': [None, 1.5],
        'infinite': [None, 'text', None],
    }
