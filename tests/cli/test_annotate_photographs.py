"""Annotating real photographs with a really pretrained classifier, where they are at hand."""

import os
import shutil
from pathlib import Path

import pytest

from tests.commands import run_command
from tokenlabel.labels.store import LabelStore

# A folder with `imagenette/val`, class folders of ImageNet, and `weights/tf_efficientnet_lite0.safetensors`.
DATA = os.environ.get('TOKENLABEL_TEST_DATA')

pytestmark = pytest.mark.skipif(DATA is None, reason='TOKENLABEL_TEST_DATA names no folder')


def test_most_photographs_are_recognised_and_the_weakest_classes_are_words(tmp_path, capsys):
    for folder in sorted(Path(DATA, 'imagenette/val').iterdir()):
        for image in sorted(folder.iterdir())[:4]:
            (tmp_path / 'images' / folder.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(image, tmp_path / 'images' / folder.name)
    weights = Path(DATA, 'weights/tf_efficientnet_lite0.safetensors')
    arguments = [tmp_path / 'images', tmp_path / 'labels', '--annotator', 'tf_efficientnet_lite0']
    assert run_command('annotate', *arguments, '--checkpoint', weights, '--img-size', 160, '--workers', 0) == 0
    said = capsys.readouterr().out
    assert 'top-1 ' in said and ' % of 40 images; weakest: ' in said and 'n0' not in said
    assert float(said.split('top-1 ')[1].split(' %')[0]) > 60
    store = LabelStore(tmp_path / 'labels')
    assert (len(store), store.num_classes, len(store.class_names)) == (40, 1000, 1000)
