"""The wheel alone, in an empty folder: the commands, the demo, and configs by name."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.places import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def installed(tmp_path_factory) -> Path:
    """A folder that the wheel is installed into, beside the dependencies of this environment."""
    folder = tmp_path_factory.mktemp('wheel')
    pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check']
    build = [*pip, 'wheel', '--quiet', '--no-deps', '--no-build-isolation', '--wheel-dir', folder]
    source = folder / 'source'
    for name in ('tokenlabel', 'mmseg_ext', 'configs'):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('setup.py', 'pyproject.toml', 'LICENSE'):
        shutil.copy(ROOT / name, source)
    subprocess.run([*build, source], check=True)
    [wheel] = folder.glob('*.whl')
    subprocess.run([*pip, 'install', '--quiet', '--no-deps', '--target', folder / 'site', wheel], check=True)
    return folder / 'site'


@pytest.fixture
def run(installed, tmp_path):
    """Runs `tokenlabel` of the wheel in an empty folder."""

    def run(*words: object) -> subprocess.CompletedProcess:
        path = os.pathsep.join(filter(None, (str(installed), os.environ.get('PYTHONPATH'))))
        environment = os.environ | {'PYTHONPATH': path, 'OMP_NUM_THREADS': '1'}
        command = [sys.executable, installed / 'bin/tokenlabel', *map(str, words)]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return run


def test_a_config_is_found_by_its_name(run, installed):
    done = run('train', 'upernet_lvvit', '--dry-run')
    assert done.returncode == 0 and '44.45 M parameters' in done.stdout, done.stderr
    done = run('train', 'upernet_lvitt', '--dry-run')
    assert done.returncode == 2 and 'upernet_lvvit' in done.stderr


def test_a_config_of_a_user_inherits_a_shipped_one(run, tmp_path):
    (tmp_path / 'mine.py').write_text("_base_ = ['tokenlabel::upernet_lvvit.py']\nrandomness = dict(seed=3)\n")
    done = run('train', 'mine.py', '--dry-run')
    assert done.returncode == 0 and '44.45 M parameters' in done.stdout, done.stderr


def test_the_demo_runs(run, tmp_path):
    done = run('demo', '--smallest')
    assert done.returncode == 0, done.stderr
    commands = [line.split()[2] for line in done.stdout.splitlines() if line.startswith('> tokenlabel')]
    assert commands == ['train', 'test', 'annotate', 'train', 'test', 'train', 'test', 'train', 'test']
    folder = tmp_path / 'work_dirs/demo'
    report = json.loads((folder / 'report.json').read_text())
    assert {'annotator_top1', 'lvvit_top1', 'upernet_mIoU', 'fpn_mIoU'} <= set(report)
    assert {'annotate', 'pretrain', 'fine-tune upernet', 'fine-tune fpn'} <= set(report['seconds'])
    for name in ('label_maps.png', 'token_predictions.png', 'segmentation.png'):
        with Image.open(folder / name) as picture:
            assert picture.width > picture.height
