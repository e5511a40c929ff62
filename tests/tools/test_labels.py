"""`tools/labels.py` as a person runs it."""

import importlib.util
from pathlib import Path

import pytest

from tokenlabel.labels.store import LabelStore

TOOL = Path(__file__).parents[2] / 'tools' / 'labels.py'


def run(*arguments) -> int:
    """The tool's exit status, run in this process."""
    spec = importlib.util.spec_from_file_location('labels_tool', TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    try:
        return tool.main([str(argument) for argument in arguments])
    except SystemExit as exit:
        return exit.code


@pytest.fixture
def images(scenes) -> Path:
    return scenes / 'imagenet/train'


def test_info_tells_what_a_store_holds(label_store, capsys):
    assert run('info', label_store) == 0
    told = capsys.readouterr().out
    assert 'images       40, of which 40 have a map' in told
    assert 'maps         8x8 cells, best 3 of ' in told
    assert '% of the cells name their image' in told
    assert '█' in told


def test_info_of_no_store_is_one_sentence(tmp_path, capsys):
    assert run('info', tmp_path / 'nowhere') == 2
    assert 'No label store at' in capsys.readouterr().err


def test_verify_finds_a_sound_store_sound(label_store, images, capsys):
    assert run('verify', label_store, '--images', images) == 0
    assert 'is sound' in capsys.readouterr().out


def test_verify_prints_problems_and_fails(label_store, scenes, capsys):
    assert run('verify', label_store, '--images', scenes / 'imagenet/val') == 1
    assert f'{label_store} has no maps of 23 images' in capsys.readouterr().out


def test_the_tool_runs_as_a_command(run_tool, label_store):
    result = run_tool('tools/labels.py', 'info', label_store)
    assert result.returncode == 0, result.stderr
    assert len(LabelStore(label_store)) == 40
    assert 'images       40' in result.stdout
