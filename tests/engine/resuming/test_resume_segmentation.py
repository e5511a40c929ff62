"""Segmentation resumes as pretraining does: the same order, the same augmentation, the same weights."""

import json
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.registry import DATASETS

from tests.engine.resuming.interruptions import EndAt, differences
from tokenlabel.data.sampler import EndlessSampler, SampleIndex
from tokenlabel.engine.resuming.seeded_samples import SeededSamples
from tokenlabel.engine.runner import Runner
from tokenlabel.errors import UserError

pytestmark = pytest.mark.distributions


@pytest.fixture
def run(run_segmentation):
    return run_segmentation


@pytest.mark.slow
def test_killed_and_resumed_it_ends_with_the_same_weights_whatever_the_workers(run):
    whole = run('whole')
    run('killed', EndAt(3), workers=2)
    assert differences(whole / 'iter_6.pth', run('killed', resume=True) / 'iter_6.pth') == []


@pytest.mark.slow
def test_killed_during_a_validation_it_validates_again_and_ends_with_the_same_weights(run):
    validating = {'train_cfg.val_interval': 2, 'default_hooks.checkpoint.save_best': 'mIoU'}
    whole = run('whole', **validating)
    killed = run('killed', EndAt(4, 'after_val_iter'), **validating)
    assert scores(killed) == scores(whole)[:1]
    run('killed', resume=True, **validating)
    assert scores(killed) == scores(whole)
    assert differences(whole / 'iter_6.pth', killed / 'iter_6.pth') == []
    assert best(killed) == best(whole) and len(best(whole)) == 1


def test_what_does_not_fit_the_optimizer_is_not_resumed(run):
    folder = run('killed', EndAt(3))
    whole = torch.load(folder / 'iter_2.pth', weights_only=False)
    name = next(name for name, state in whole['optimizer']['state'].items() if state['exp_avg'].ndim == 2)
    whole['optimizer']['state'][name]['exp_avg'] = torch.ones(7)
    torch.save(whole, folder / 'iter_2.pth')
    with pytest.raises(UserError, match=r'iter_2\.pth holds exp_avg of the optimizer for .* as float32 \[7\] instead'):
        run('killed', resume=True)


def scores(folder: Path) -> list[tuple[int, float]]:
    """Iteration and mIoU of the validations of a run and of those that went on from it."""
    lines = [json.loads(line) for path in sorted(folder.glob('*/vis_data/scalars.json')) for line in path.open()]
    return [(line['step'], line['mIoU']) for line in lines if 'mIoU' in line]


def best(folder: Path) -> list[str]:
    """Names of the checkpoints of the best weights."""
    return [path.name for path in folder.glob('best_*')]


class Drawing:
    """A dataset that augments with the global generators, as MMSegmentation's do."""

    name = 'drawing'

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple:
        return index, random.random(), np.random.rand()


@pytest.fixture
def drawing(monkeypatch) -> dict:
    monkeypatch.setitem(DATASETS._module_dict, 'Drawing', Drawing)
    return {'type': 'Drawing'}


def test_a_sample_is_a_function_of_seed_epoch_and_index(drawing):
    first, again = SeededSamples(drawing, seed=3), SeededSamples(drawing, seed=3)
    second, later = SampleIndex(2, epoch=1), SampleIndex(2, epoch=2)
    assert first[second] == again[second] != first[later]
    assert SeededSamples(drawing, seed=4)[second] != first[second]


def test_what_the_dataset_has_the_seeded_one_has_also_in_a_copy(drawing):
    copy = pickle.loads(pickle.dumps(SeededSamples(drawing, seed=3)))
    assert copy.name == 'drawing' and len(copy) == 5
    with pytest.raises(AttributeError, match='metainfo'):
        copy.metainfo  # noqa: B018


@pytest.mark.parametrize(('sampler', 'dataset'), [(EndlessSampler, SeededSamples), (DefaultSampler, Drawing)])
def test_samples_of_the_endless_order_are_seeded(drawing, sampler, dataset):
    order = {'type': sampler.__name__, 'shuffle': False}
    loader = Runner.build_dataloader({'dataset': drawing, 'sampler': order, 'batch_size': 1}, seed=0)
    assert type(loader.sampler) is sampler
    assert type(loader.dataset) is dataset
