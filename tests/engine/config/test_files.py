"""Config files that are none, that have mistakes, that would act: one sentence each, with file and line."""

import os

import pytest

from tokenlabel.engine.config.run_config import load_config
from tokenlabel.errors import UserError

REDUCE = '!!python/object/apply:os.system ["touch {marker}"]'


def refused(path, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        load_config(path)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('name', 'text', 'said'),
    [
        ('a.py', 'model = dict(\n', r'a\.py cannot be read: line 1: '),
        ('a.py', 'x = 1\ny = 1 +\n', r'a\.py cannot be read: line 2: invalid syntax'),
        ('a.py', 'x = 1\ny = x / 0\n', r'a\.py cannot be read: line 2: ZeroDivisionError: division by zero'),
        ('a.py', 'raise SystemExit(0)', r'a\.py cannot be read: line 1: SystemExit'),
        ('a.py', 'exit()', r'a\.py cannot be read: line 1'),
        ('a.py', '_base_ = ["none.py"]', r'inherits from .*none\.py, which is not there'),
        ('a.py', '_base_ = 5', 'neither the path of a config nor a list'),
        ('a.py', '_base_ = ["a.py"]', r'inherits from itself: a\.py -> a\.py'),
        ('a.py', '_base_ = "."', 'is not a config file'),
        ('a.py', '_base_ = ["mmnone::a.py"]', '`_base_` that cannot be found'),
        ('a.py', 'a = dict()\na["a"] = a', 'refers to itself, or is nested too deep'),
        ('a.py', '(' * 500 + ')' * 500, r'a\.py cannot be read'),
        ('a.py', '\0', r'a\.py cannot be read'),
        ('a.yaml', REDUCE, r'a\.yaml cannot be read: line 1: could not determine a constructor'),
        ('a.yml', 'model:\n  type: ' + REDUCE, r'a\.yml cannot be read: line 2'),
        ('a.yaml', 'a: &a\n  b: *a\n', 'refers to itself'),
        ('a.yaml', 'a: [1, 2', r'a\.yaml cannot be read: line'),
        ('a.yaml', '- 1', 'holds no keys'),
        ('a.yaml', '', 'holds no keys'),
        ('a.json', '', r'a\.json cannot be read: line 1'),
        ('a.json', '{"a": 1,}', r'a\.json cannot be read: line 1'),
        ('a.json', '[' * 100_000, r'a\.json cannot be read: RecursionError'),
        ('a.json', '{"_base_": "a.json"}', 'inherits from itself'),
        ('a.txt', 'x = 1', 'is not a config file: name one that ends in'),
        ('a', 'x = 1', 'is not a config file'),
    ],
)
def test_a_file_that_is_no_config_is_told(name, text, said, tmp_path):
    (tmp_path / name).write_text(text.replace('{marker}', str(tmp_path / 'marker')))
    refused(tmp_path / name, said)
    assert not (tmp_path / 'marker').exists()


def test_no_base_of_a_python_config_acts_when_it_is_yaml(tmp_path):
    (tmp_path / 'base.yaml').write_text('x: ' + REDUCE.replace('{marker}', str(tmp_path / 'marker')))
    (tmp_path / 'a.py').write_text('_base_ = ["base.yaml"]')
    refused(tmp_path / 'a.py', r'base\.yaml cannot be read: line 1')
    # an expression that is known only when the file runs
    (tmp_path / 'a.py').write_text('_base_ = ["base" + ".yaml"]')
    refused(tmp_path / 'a.py', 'could not determine a constructor')
    assert not (tmp_path / 'marker').exists()


def test_a_circle_of_files_is_named(tmp_path):
    for name, base in (('a', 'b'), ('b', 'c'), ('c', 'b')):
        (tmp_path / f'{name}.py').write_text(f'_base_ = "{base}.py"')
    refused(tmp_path / 'a.py', r'inherits from itself: b\.py -> c\.py -> b\.py')


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / 'a.py')
    refused(tmp_path / 'a.py', r'a\.py cannot be read \(not a regular file\)')


def test_a_folder_is_told(tmp_path):
    (tmp_path / 'a.py').mkdir()
    refused(tmp_path / 'a.py', r'a\.py cannot be read \(is a directory\)')


def test_what_is_no_utf_8_is_told(tmp_path):
    (tmp_path / 'a.py').write_bytes('name = "für"'.encode('latin-1'))
    refused(tmp_path / 'a.py', r'a\.py is not UTF-8 text')


def test_a_file_far_too_large_is_not_read(tmp_path):
    with open(tmp_path / 'a.py', 'wb') as file:
        file.truncate(10**12)
    refused(tmp_path / 'a.py', 'has 1,000,000,000,000 bytes and is not a config file')


@pytest.mark.parametrize(
    ('name', 'text'), [('a.yaml', 'x: [1, 2]'), ('a.json', '{"x": [1, 2]}'), ('a.py', 'x = [1, 2]')]
)
def test_plain_data_is_read_from_every_kind_of_file(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    assert load_config(tmp_path / name).x == [1, 2]


def test_a_file_may_inherit_twice_from_one_that_is_not_itself(tmp_path):
    (tmp_path / 'base.py').write_text('x = 1')
    (tmp_path / 'a.py').write_text('_base_ = "base.py"\ny = 1')
    (tmp_path / 'b.py').write_text('_base_ = ["a.py"]\nz = 2')
    assert load_config(tmp_path / 'b.py').x == 1


@pytest.mark.parametrize('name', ['a.py', 'a.json', 'a.yaml'])
def test_a_byte_order_mark_and_windows_line_ends_are_read_over(name, tmp_path):
    texts = {
        '.py': "_base_ = ['{base}']\r\nepochs = '{{{{ fileBasename }}}}'\r\n",
        '.json': '{{"_base_": "{base}",\r\n"epochs": "{{{{ fileBasename }}}}"}}',
        '.yaml': '_base_: {base}\r\nepochs: "{{{{ fileBasename }}}}"\r\n',
    }
    path = tmp_path / name
    for file, base in ((path, f'base{path.suffix}'), (tmp_path / f'base{path.suffix}', 'root.py')):
        file.write_bytes(b'\xef\xbb\xbf' + texts[path.suffix].format(base=base).encode())
    (tmp_path / 'root.py').write_bytes('\ufeff# Größe\r\nwork_dir = "café"\r\n'.encode())
    assert dict(load_config(path)) == dict(work_dir='café', epochs=name)
