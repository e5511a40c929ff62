"""Standard output that is closed, full, read by nobody, or of another encoding ends no command with a traceback."""

import io
import os
import sys

import pytest

from tests.child_process import run_forked
from tokenlabel.cli.boundary import reports_errors
from tokenlabel.errors import UserError
from tokenlabel.processes.standard_streams import prepare_streams


@reports_errors
def prints(lines: int, error: Exception | None = None) -> None:
    for number in range(lines):
        print(f'line {number}')
    if error:
        raise error


@pytest.mark.parametrize('lines', [1, 100_000])  # met when Python ends, and while the command prints
def test_a_reader_that_has_gone_ends_the_command_quietly(tmp_path, lines):
    reading, writing = os.pipe()
    os.close(reading)
    done = run_forked(tmp_path, prints, lines, stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, '')


@pytest.mark.parametrize('lines', [1, 100_000])
def test_a_full_disk_under_standard_output_is_one_sentence(tmp_path, lines):
    full = os.open('/dev/full', os.O_WRONLY)
    done = run_forked(tmp_path, prints, lines, stdout=full)
    os.close(full)
    assert done.returncode == 2
    assert done.stderr.startswith('error: Standard output, or another file, cannot be read or written (No space left')
    assert done.stderr.count('\n') == 1


def test_bad_input_is_said_also_where_standard_output_is_full(tmp_path):
    full = os.open('/dev/full', os.O_WRONLY)
    done = run_forked(tmp_path, prints, 1, UserError('wrong'), stdout=full)
    os.close(full)
    assert (done.returncode, done.stderr) == (2, 'error: wrong\n')


def closes_its_output() -> int:
    """Prints, and opens a file, after its standard streams have been closed."""
    for descriptor in (0, 1):
        os.close(descriptor)
    sys.stdout = None
    prints(3)
    return os.open(os.devnull, os.O_RDONLY)


def test_no_file_takes_the_place_of_a_closed_standard_stream(tmp_path):
    done = run_forked(tmp_path, closes_its_output)
    assert done.returncode > 2 and done.stderr == ''


@pytest.mark.parametrize('encoding', ['ascii', 'latin-1', 'utf-8'])
def test_any_name_can_be_printed(monkeypatch, encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, 'stdout', stream)
    prepare_streams()
    print('Ÿ█ \udcff.jpg')
    stream.flush()
    assert stream.buffer.getvalue().endswith(b' \\udcff.jpg\n')
