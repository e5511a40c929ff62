"""What several test files need: tiny digit scenes, a label store for them, and how to run a tool."""

import ast
import gc
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from mmengine.registry import DefaultScope
from PIL import Image

from tests.commands import run_command
from tests.label_stores import write_store
from tests.places import ROOT
from tokenlabel.data.digit_scenes import CLASSES, write_digit_scenes

# The same examples in every run, so that a change and nothing else turns a test red. To look for new ones:
# HYPOTHESIS_PROFILE=search python -m pytest
settings.register_profile('repeatable', derandomize=True, deadline=None)
settings.register_profile('search', deadline=None)
settings.load_profile(os.environ.get('HYPOTHESIS_PROFILE', 'repeatable'))


def pytest_collection_finish() -> None:
    """Keeps what the tests import out of each search for garbage, of which MMEngine's data sets begin one."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope='session')
def unformatted_configs():
    """Configs are written with the line breaks that they have: to lay one out takes yapf longer than a tiny run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('yapf.yapflib.yapf_api.FormatCode', lambda text, **_: (text, bool(ast.parse(text))))
        yield


@pytest.fixture(autouse=True)
def no_default_scope():
    """Undoes what a test tells MMEngine's registries: the next one starts without a default scope."""
    yield
    DefaultScope._instance_dict.clear()


@pytest.fixture(scope='session')
def scenes(tmp_path_factory) -> Path:
    """Digit scenes on disk: 40 to train on, 23 to validate on, 8 and 5 of them with masks."""
    return write_digit_scenes(tmp_path_factory.mktemp('digits') / 'scenes', 40, 23, 8, 5)


@pytest.fixture(scope='session')
def label_store(scenes) -> Path:
    """Random label maps of the training scenes, 8 x 8 cells of the top 3."""
    images = scenes / 'imagenet/train'
    keys = [path.relative_to(images).as_posix() for path in images.rglob('*.jpg')]
    return write_store(scenes.parent / 'labels', keys, len(CLASSES), k=3, grid=8, class_names=CLASSES).path


@pytest.fixture(scope='session')
def ade20k(tmp_path_factory) -> Path:
    """Three images of odd sizes in the layout of ADE20K, for training and validation alike."""
    root = tmp_path_factory.mktemp('ade')
    rng = np.random.default_rng(0)
    for split in ('training', 'validation'):
        for kind in ('images', 'annotations'):
            (root / kind / split).mkdir(parents=True)
        for i, size in enumerate([(150, 130), (131, 170), (140, 140)]):
            Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(root / 'images' / split / f'{i}.jpg')
            Image.fromarray(rng.integers(0, 8, size, np.uint8)).save(root / 'annotations' / split / f'{i}.png')
    return root


@pytest.fixture
def run_tool() -> Callable[..., subprocess.CompletedProcess]:
    """Runs a command of the project from its root, as a user would, on one thread."""

    def run(*command, **environment) -> subprocess.CompletedProcess:
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get('PYTHONPATH'))))
        settings = {'PYTHON': sys.executable, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1', **environment}
        words = [sys.executable] * str(command[0]).endswith('.py') + [str(word) for word in command]
        return subprocess.run(words, cwd=ROOT, env=os.environ | settings, capture_output=True, text=True, timeout=600)

    return run


@pytest.fixture
def run_here(capfd, monkeypatch) -> Callable[..., subprocess.CompletedProcess]:
    """Runs a command of the project from its root in this process: `run_here('train', CONFIG, ...)`."""
    monkeypatch.chdir(ROOT)

    def run(name: str, *arguments: object) -> subprocess.CompletedProcess:
        capfd.readouterr()
        status = run_command(name, *arguments)
        return subprocess.CompletedProcess(name, status, *capfd.readouterr())

    return run
