"""A run that was killed and resumed ends as one that was not, bit for bit, and keeps the same checkpoints."""

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook

from tests.engine.resuming.interruptions import RANDOM, EndAt, Ended, differences
from tests.training_processes import overridden
from tokenlabel.data.images import LabeledImages
from tokenlabel.data.sampler import SampleIndex
from tokenlabel.engine.resuming.checkpoint_files import newest_checkpoint
from tokenlabel.engine.resuming.random_states import random_numbers_used_twice
from tokenlabel.errors import UserError


@pytest.fixture
def run(make_runner, tmp_path):
    """Trains 8 iterations, five an epoch, in a folder of that name; `ends` is when the run is killed."""

    def run(folder: str, ends: EndAt | None = None, hooks: tuple[Hook, ...] = (), **options):
        settings = RANDOM | {'work_dir': str(tmp_path / folder), 'train_cfg.val_interval': 4}
        runner = make_runner(iterations=8, **overridden(settings, options))
        for hook in (*hooks, *([ends] if ends else ())):
            runner.register_hook(hook)
        if ends:
            with pytest.raises(Ended):
                runner.train()
        else:
            runner.train()
        return Path(runner.work_dir)

    return run


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob('*.pth*'))


def logged(folder: Path) -> str:
    return ''.join(path.read_text() for path in folder.glob('*/*.log'))


@pytest.mark.parametrize(('before', 'after'), [(0, 2), pytest.param(2, 0, marks=pytest.mark.slow)])
def test_killed_and_resumed_it_ends_with_the_same_weights_whatever_the_workers(run, before, after):
    def loader(workers: int) -> dict:
        return {'train_dataloader.num_workers': workers, 'train_dataloader.persistent_workers': workers > 0}

    whole = run('whole')
    run('killed', EndAt(5), **loader(before))
    resumed = run('killed', resume=True, **loader(after))
    assert differences(whole / 'iter_8.pth', resumed / 'iter_8.pth') == []
    assert checkpoints(resumed) == checkpoints(whole)


def test_samples_that_were_seen_are_not_read_again(run, monkeypatch):
    read = []
    original = LabeledImages._read
    monkeypatch.setattr(LabeledImages, '_read', lambda self, index: read.append(index) or original(self, index))
    without = {f'val_{part}': None for part in ('dataloader', 'cfg', 'evaluator')}
    without |= {'default_hooks.checkpoint.save_best': None}
    run('whole', **without)
    whole, read[:] = list(read), []
    run('killed', EndAt(5), **without)
    read.clear()
    run('killed', resume=True, **without)
    assert read == whole[4 * 8 :]


class DrawsInValidation(Hook):
    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        random.random(), np.random.rand(), torch.rand(3)


def test_what_validation_draws_changes_nothing(run):
    drawing = run('drawing', EndAt(4), hooks=(DrawsInValidation(),), **{'train_cfg.val_interval': 2})
    assert differences(run('still', EndAt(4)) / 'iter_4.pth', drawing / 'iter_4.pth') == []


def test_a_run_without_a_seed_of_its_own_goes_on_in_its_order(run, monkeypatch):
    seen = []
    original = LabeledImages.__getitem__

    def recorded(self, which):
        if isinstance(which, SampleIndex):
            seen.append((int(which), self.seed))
        return original(self, which)

    monkeypatch.setattr(LabeledImages, '__getitem__', recorded)
    run('killed', EndAt(2), randomness={'seed': None, 'diff_rank_seed': True})
    del seen[2 * 8 :]  # of the iteration that was not finished
    run('killed', EndAt(5), resume=True, randomness={'seed': None, 'diff_rank_seed': True})
    indices, seeds = zip(*seen[:40], strict=True)
    assert sorted(indices) == list(range(40))
    assert len(set(seeds)) == 1


def test_a_validation_that_the_kill_prevented_is_made_up_for(run):
    killed = run('killed', EndAt(4, 'before_val'))
    assert 'best_top1_iter_4.pth' not in checkpoints(killed)
    run('killed', EndAt(4), resume=True)
    assert 'best_top1_iter_4.pth' in checkpoints(killed)


def test_a_resumed_run_keeps_as_many_checkpoints_and_one_best(run):
    keeping = {'default_hooks.checkpoint.max_keep_ckpts': 2, 'train_cfg.val_interval': 2}
    run('killed', EndAt(5), **keeping)
    resumed = run('killed', resume=True, **keeping)
    assert {'iter_6.pth', 'iter_8.pth'} == {name for name in checkpoints(resumed) if name.startswith('iter')}
    assert len([name for name in checkpoints(resumed) if name.startswith('best')]) == 1


def test_the_only_checkpoint_is_there_until_the_next_one_is(run, monkeypatch):
    def killed(source, target):
        raise Ended

    keeping = {'default_hooks.checkpoint.max_keep_ckpts': 1, 'train_cfg.val_interval': 8}
    run('killed', EndAt(2), **keeping)
    replace = os.replace
    monkeypatch.setattr(os, 'replace', killed)
    run('killed', EndAt(100), resume=True, **keeping)
    monkeypatch.setattr(os, 'replace', replace)
    assert checkpoints(run('killed', EndAt(4, 'after_train_iter'), resume=True, **keeping)) == ['iter_4.pth']


def test_the_random_states_of_another_number_of_processes_are_left_alone(run, tmp_path):
    folder = run('killed', EndAt(5))
    for path in folder.glob('iter_*.pth'):
        checkpoint = torch.load(path, weights_only=False)
        checkpoint['meta']['random_states'] *= 2
        torch.save(checkpoint, path)
    resumed = run('killed', resume=True, log_level='WARNING')
    assert 'processes 2 -> 1 (so the random numbers and the images of an iteration' in logged(resumed)


def test_a_run_that_has_nothing_to_resume_starts_anew(run):
    folder = run('new', EndAt(2), resume=True, log_level='WARNING')
    assert f'No checkpoint in {folder} to resume from: training starts from scratch' in logged(folder)


def test_what_does_not_fit_the_run_is_not_resumed(run):
    folder = run('killed', EndAt(2))
    whole = torch.load(folder / 'iter_2.pth', weights_only=False)
    exp_avg = whole['optimizer']['state'][5]['exp_avg']
    whole['optimizer']['state'][5]['exp_avg'] = torch.ones(7)
    torch.save(whole, folder / 'iter_2.pth')
    with pytest.raises(UserError, match=r'iter_2\.pth holds exp_avg of the optimizer for .* as float32 \[7\] instead'):
        run('killed', resume=True)
    whole['optimizer']['state'][5]['exp_avg'] = exp_avg
    del whole['param_schedulers'], whole['message_hub']
    torch.save(whole, folder / 'weights.pth')
    with pytest.raises(UserError, match=r'weights\.pth .*\(without message_hub, param_schedulers\)'):
        run('killed', resume=True, load_from=str(folder / 'weights.pth'))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Checkpoints in the order they were written: iter_9 of an earlier run, then iter_2 and iter_4."""
    for time, number in enumerate((9, 2, 4)):
        torch.save({'state_dict': {}, 'meta': {'iter': number}}, tmp_path / f'iter_{number}.pth')
        os.utime(tmp_path / f'iter_{number}.pth', (time, time))
    torch.save({'state_dict': {}}, tmp_path / 'best_top1_iter_4.pth')
    return tmp_path


def test_the_newest_checkpoint_is_the_last_written_that_can_be_read(folder):
    assert newest_checkpoint(folder) == folder / 'iter_4.pth'
    os.truncate(folder / 'iter_4.pth', 100)
    assert newest_checkpoint(folder) == folder / 'iter_2.pth'
    (folder / 'iter_2.pth').write_bytes(b'')
    assert newest_checkpoint(folder) == folder / 'iter_9.pth'


def test_a_newest_checkpoint_with_a_flipped_bit_or_weights_that_are_nan_is_passed_over(folder):
    data = bytearray((folder / 'iter_4.pth').read_bytes())
    data[data.index(b'state_dict')] ^= 4
    (folder / 'iter_4.pth').write_bytes(data)
    torch.save({'state_dict': {'weight': torch.tensor(float('nan'))}, 'meta': {}}, folder / 'iter_2.pth')
    os.utime(folder / 'iter_2.pth', (1, 1))
    assert newest_checkpoint(folder) == folder / 'iter_9.pth'


def test_the_pointer_to_the_last_checkpoint_counts_more_than_times_of_copied_files(folder):
    (folder / 'last_checkpoint').write_text('elsewhere/iter_2.pth')
    assert newest_checkpoint(folder) == folder / 'iter_2.pth'


def test_a_folder_whose_checkpoints_are_all_broken_is_refused(folder):
    for path in folder.glob('iter_*.pth'):
        os.truncate(path, 100)
    with pytest.raises(UserError, match=r'iter_\d\.pth is truncated'):
        newest_checkpoint(folder)


def test_an_empty_folder_has_no_newest_checkpoint(tmp_path):
    assert newest_checkpoint(tmp_path) is newest_checkpoint(tmp_path / 'missing') is None


def test_the_generators_go_back_to_where_they_were():
    def draw() -> tuple:
        return random.random(), np.random.standard_normal(), torch.rand(1).item()

    np.random.standard_normal()  # keeps the second of a pair
    with random_numbers_used_twice():
        first = draw()
    assert draw() == first
