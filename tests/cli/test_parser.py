"""Flags of all tools: what cannot be is one sentence and status 2, before anything is read or written."""

import pytest
import torch

from tests.commands import run_command
from tokenlabel.devices import usable_device
from tokenlabel.errors import UserError

CHECKPOINT = ['--config', 'configs/demo/upernet.py', '--checkpoint', 'none.pth', '--out', 'out']
COMMANDS = {
    'annotate': ['images', 'store', '--annotator', 'test_resnet'],
    'labels': ['view', 'store', 'a.jpg', '--images', 'images', '--out', 'labels.png'],
    'segment': ['images', *CHECKPOINT],
    'test': ['config.py', 'none.pth'],
    'convert': ['source.pth', 'target.pth'],
    'demo': [],
    'benchmark': [],
}


NO_NUMBER = ('x', '', '1.5', 'nan', '1e3', '9' * 5000, '0x10', '1_0', 'None')
CASES = [
    ('annotate', '--workers', ('-1', '1025', *NO_NUMBER), 'from 0 to 1024'),
    ('annotate', '--batch-size', ('0', '-1', '65537', '1' + '0' * 30), 'from 1 to 65536'),
    ('annotate', '--img-size', ('0', '-64', '100000', '1' + '0' * 30), 'from 1 to 8192'),
    ('annotate', '--k', ('0', '-1', *NO_NUMBER), 'from 1 on'),
    ('annotate', '--num-classes', ('0', '-1'), 'from 1 on'),
    ('annotate', '--crop-pct', ('0', '-1', '1.01'), 'not above 0 and at most 1'),
    ('annotate', '--crop-pct', ('nan', 'inf', '-inf', 'x', ''), 'is not a finite number'),
    ('annotate', '--precision', ('fp8', 'FP32', ''), 'invalid choice'),
    ('annotate', '--device', ('cuda:99', 'xpu', 'mps', 'meta', 'abacus', '', 'cuda:-1', 'cuda:x', 'vulkan'), 'device'),
    ('annotate', '--model-kwargs', ('nonsense', '=1', '1=2', 'a b=1', '-'), 'is not of the form NAME=VALUE'),
    ('annotate', '--model-kwargs', ('a=[1,2', 'a=(1', 'a={', 'a="x', "a='x"), 'has an unclosed bracket or quote'),
    (
        'annotate',
        '--model-kwargs',
        ('checkpoint_path=x', 'pretrained=True', 'model_name=x'),
        'not an argument of a network',
    ),
    (
        'labels',
        '--crop',
        ('nan,0,1,1', '0,nan,1,1', '0,0,nan,1', '0,0,1,inf', 'x,0,1,1', ',,,'),
        'is not a finite number',
    ),
    ('labels', '--crop', ('0,0,1', '0,0,1,1,1', '', '0 0 1 1'), 'is not a crop: give LEFT,TOP,WIDTH,HEIGHT'),
    (
        'labels',
        '--crop',
        ('0,0,0,1', '0,0,1,-1', '0.5,0,0.6,1', '0,1,1,0.1', '0,0,1e-300,1'),
        'is not inside the image',
    ),
    ('labels', '--grid', ('0', '-1', '257', *NO_NUMBER), 'from 1 to 256'),
    ('segment', '--alpha', ('-0.1', '1.5', '1e9'), 'is not between 0 and 1'),
    ('segment', '--alpha', ('nan', 'inf', 'x'), 'is not a finite number'),
    ('segment', '--max-side', ('0', '-1', '1.5', 'x'), 'from 1 on'),
    (
        'segment',
        '--memory-limit',
        ('0', '-1', '1e999', 'nan', 'inf', '9' * 400, 'lots', '', '0.0G', '4X'),
        'is not a size',
    ),
    ('segment', '--device', ('cuda:99', 'xpu', 'meta', 'x'), 'device'),
    ('segment', '--classes', (), 'expected at least one argument'),
    ('test', '--local-rank', ('x', '', '1.5'), 'invalid int value'),
    ('test', '--launcher', ('ssh',), 'invalid choice'),
    ('convert', '--to', ('onnx', ''), 'invalid choice'),
    ('demo', '--seeds', ('0', '-1', 'x'), 'from 1 on'),
    ('demo', '--jobs', ('0', '-1', 'x'), 'from 1 on'),
]


@pytest.mark.parametrize(('tool', 'flag', 'values', 'said'), CASES)
def test_a_wrong_value_is_one_sentence(tool, flag, values, said, capsys):
    for words in [[value] for value in values] or [[]]:
        value = f'{flag}={words[0]}' if words and words[0].startswith('-') else flag
        line = [value] if '=' in value else [value, *words]
        assert run_command(tool, *COMMANDS[tool], *line) == 2, words
        printed = capsys.readouterr()
        assert printed.out == '' and printed.err.startswith(f'error: argument {flag}')
        assert said in printed.err and printed.err.count('\n') == 1, printed.err


@pytest.mark.parametrize(
    ('tool', 'arguments', 'said'),
    [
        ('labels', [], 'the following arguments are required: COMMAND'),
        ('labels', ['polish'], 'invalid choice'),
        ('labels', ['subset', 'a', 'b'], 'one of the arguments --keys --classes --images is required'),
        (
            'labels',
            ['check-geometry', 'a', 'b', '--annotator', 'c', '--samples', '0'],
            'argument --samples: 0 is not from 1',
        ),
        ('labels', ['import-release', 'a', 'b', '--workers', '-1'], 'argument --workers: -1 is not from 0 to 1024'),
        ('labels', ['import-release', 'a', 'b', '--size', '0'], 'argument --size: 0 is not from 1'),
        ('annotate', ['images'], 'the following arguments are required: store, --annotator'),
        ('annotate', [*COMMANDS['annotate'], '--batch', '4', '--colour'], 'unrecognized arguments: --colour'),
        ('annotate', [*COMMANDS['annotate'], '--model-kwargs', 'a=1', 'a=2'], 'a is given twice'),
        ('benchmark', ['loss', '--batch', '0'], 'argument --batch: 0 is not from 1'),
        ('benchmark', ['labels', '--device', 'meta'], 'meta is not a device to compute on'),
        ('benchmark', ['step', '--peak-tflops', '0'], '0 is not above 0'),
        ('benchmark', ['step', '--drop-path', '2'], '2 is not between 0 and 1'),
        ('benchmark', ['segment', '--runs', '-1'], 'argument --runs: -1 is not from 1'),
    ],
)
def test_a_command_line_that_cannot_be_is_one_sentence(tool, arguments, said, capsys):
    assert run_command(tool, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ') and said in error and error.count('\n') == 1, error


def test_arguments_of_a_network_are_read_as_python_where_they_are_literals(monkeypatch):
    from tokenlabel.cli.parser import ModelKwargs, Parser

    parser = Parser()
    parser.add_argument('--model-kwargs', nargs='*', default={}, action=ModelKwargs)
    words = ['width=[32, 64]', 'drop=0.1', 'pool=avg', 'norm=None', 'text="a=b"', 'empty=']
    assert parser.parse_args(['--model-kwargs', *words]).model_kwargs == {
        'width': [32, 64],
        'drop': 0.1,
        'pool': 'avg',
        'norm': None,
        'text': 'a=b',
        'empty': '',
    }


def test_sizes_and_crops_are_read():
    from tokenlabel.cli.parser import crop, size_in_bytes

    assert [size_in_bytes(text) for text in ('800M', '2.5 GiB', '7', 'none', '1k')] == [
        800 * 2**20,
        5 * 2**29,
        7,
        None,
        1024,
    ]
    assert crop('0.5,0,0.5,1') == (0.5, 0, 0.5, 1)
    assert crop('0.999,0,0.001,1') == (0.999, 0, 0.001, 1)


def test_devices_that_compute_are_usable():
    assert usable_device('cpu') == usable_device(torch.device('cpu')) == torch.device('cpu')
    for name in ('meta', 'abacus', 'cuda:99'):
        with pytest.raises(UserError, match='device'):
            usable_device(name)


@pytest.mark.parametrize('tool', COMMANDS)
def test_help_is_no_error(tool, capsys):
    assert run_command(tool, '--help') == 0
    assert 'usage: ' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('name', 'value'), [('RANK', 'x'), ('WORLD_SIZE', ''), ('LOCAL_RANK', '-1'), ('MASTER_PORT', 'x')]
)
def test_a_wrong_environment_is_one_sentence_in_every_tool_that_reads_it(monkeypatch, capsys, tmp_path, name, value):
    monkeypatch.setenv('RANK', '0')
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.setenv('WORLD_SIZE', '1')
    monkeypatch.setenv('MASTER_ADDR', 'localhost')
    monkeypatch.setenv('MASTER_PORT', '29500')
    monkeypatch.setenv(name, value)
    arguments = ['configs/demo/pretrain.py', tmp_path / 'none.pth', '--launcher', 'pytorch', '--work-dir', tmp_path]
    for tool, line in (('annotate', COMMANDS['annotate']), ('test', arguments)):
        assert run_command(tool, *line) == 2
        error = capsys.readouterr().err
        assert error.startswith(f'error: The environment sets {name} to {value!r}') and error.count('\n') == 1
