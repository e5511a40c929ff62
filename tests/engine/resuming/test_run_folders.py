"""What a run keeps and removes: files of its own, in its own folder, whatever a checkpoint says."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub

from tests.engine.resuming.interruptions import RANDOM
from tokenlabel.engine.resuming.checkpoint_files import last_checkpoint, newest_checkpoint
from tokenlabel.engine.resuming.checkpoint_hook import ResumableCheckpointHook
from tokenlabel.engine.runner import Runner
from tokenlabel.errors import UserError

# Files of which each has a name that a checkpoint could give.
FILES = ('best_top1_iter_2.pth', 'best_top1_iter_4.pth', 'iter_2.pth', 'iter_4.pth', 'iter_6.pth', 'notes.txt')


class SavesNames:
    """Stands for a Runner whose checkpoints are empty files."""

    rank, iter, epoch = 0, 8, 0

    def __init__(self, work_dir: Path, resumed_from: Path | None, info: dict) -> None:
        self.work_dir, self.resumed_from = str(work_dir), resumed_from
        self.message_hub = MessageHub(f'hub of {work_dir}')
        for name, value in info.items():
            self.message_hub.update_info(name, value)
        self.logger = SimpleNamespace(info=lambda line: None, warning=lambda line: None)

    def save_checkpoint(self, folder: str, name: str, **options) -> None:
        Path(folder, name).touch()


def improve(work_dir: Path, resumed_from: Path | None, info: dict, **options) -> dict:
    """Validation finds a better score in a run that resumed with these notes; returns its notes."""
    runner = SavesNames(work_dir, resumed_from, info)
    hook = ResumableCheckpointHook(**{'interval': 2, 'by_epoch': False, 'save_best': 'top1'} | options)
    hook.before_train(runner)
    hook.after_val_epoch(runner, {'top1': 99.0, 'top5': 99.0})
    return dict(runner.message_hub.runtime_info)


def made(folder: Path) -> Path:
    folder.mkdir()
    for name in FILES:
        (folder / name).touch()
    return folder


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_better_score_removes_the_former_best_of_the_same_folder(tmp_path):
    one = made(tmp_path / 'one')
    noted = improve(one, one / 'iter_6.pth', {'best_score': 1.0, 'best_ckpt': 'best_top1_iter_2.pth'})
    assert names_in(one) == {*FILES, 'best_top1_iter_8.pth'} - {'best_top1_iter_2.pth'}
    assert noted['best_ckpt'] == 'best_top1_iter_8.pth'


def test_a_copied_folder_removes_its_own_copy_and_nothing_of_the_first(tmp_path):
    one, copy = made(tmp_path / 'one'), made(tmp_path / 'copy')
    absolute = {'best_score': 1.0, 'best_ckpt': str(one / 'best_top1_iter_2.pth')}  # as earlier versions note it
    improve(copy, copy / 'iter_6.pth', absolute)
    assert names_in(one) == set(FILES)
    assert names_in(copy) == {*FILES, 'best_top1_iter_8.pth'} - {'best_top1_iter_2.pth'}


def test_a_run_that_resumes_from_another_folder_removes_nothing_of_either(tmp_path):
    one, other = made(tmp_path / 'one'), made(tmp_path / 'other')
    info = {'best_score': 100.0, 'best_ckpt': str(one / 'best_top1_iter_2.pth'), 'keep_ckpt_ids': [2, 4, 6]}
    noted = improve(other, one / 'iter_6.pth', info, max_keep_ckpts=1)
    assert names_in(one) == set(FILES)
    assert names_in(other) == {*FILES, 'best_top1_iter_8.pth'}
    assert noted['best_score'] == 99.0  # the best of this folder


@pytest.mark.parametrize(
    'named',
    [
        '../precious',
        '/precious',
        'notes.txt',
        'iter_4.pth',
        '..',
        '',
        'best_top1_iter_2.pth/..',
        'best_top5_iter_2.pth',
        5,
        None,
        ['best_top1_iter_2.pth'],
    ],
)
def test_what_no_run_names_so_is_never_removed(tmp_path, named):
    one = made(tmp_path / 'one')
    (tmp_path / 'precious').mkdir()
    (tmp_path / 'precious/file').touch()
    if isinstance(named, str) and named.startswith('/'):
        named = f'{tmp_path}{named}'
    improve(one, one / 'iter_6.pth', {'best_score': 1.0, 'best_ckpt': named, 'last_ckpt': named})
    assert names_in(one) == {*FILES, 'best_top1_iter_8.pth'}
    assert (tmp_path / 'precious/file').is_file()


def test_a_folder_of_a_checkpoints_name_is_not_removed(tmp_path):
    one = made(tmp_path / 'one')
    for name in ('best_top1_iter_2.pth', 'iter_2.pth'):
        (one / name).unlink()
        (one / name).mkdir()
    info = {'best_score': 1.0, 'best_ckpt': 'best_top1_iter_2.pth', 'keep_ckpt_ids': [2, 4, 6]}
    improve(one, one / 'iter_6.pth', info, max_keep_ckpts=2)
    assert names_in(one) == {*FILES, 'best_top1_iter_8.pth'}


@pytest.mark.parametrize('ids', [['../../precious', 4, 6], 'iter', {'2': 3}, [2.0, True, -1, 4, 6], 7])
def test_only_numbers_of_iterations_name_checkpoints_to_be_removed(tmp_path, ids):
    one = made(tmp_path / 'one')
    (tmp_path / 'precious.pth').touch()
    improve(one, one / 'iter_6.pth', {'keep_ckpt_ids': ids}, max_keep_ckpts=2)
    assert names_in(one) == {*FILES, 'best_top1_iter_8.pth'}
    assert (tmp_path / 'precious.pth').is_file()


def test_the_oldest_of_too_many_checkpoints_go(tmp_path):
    one = made(tmp_path / 'one')
    improve(one, one / 'iter_6.pth', {'keep_ckpt_ids': [2, 4, 6]}, max_keep_ckpts=1)
    assert names_in(one) == {*FILES, 'best_top1_iter_8.pth'} - {'iter_2.pth', 'iter_4.pth'}


def test_the_best_of_several_metrics_are_kept_apart(tmp_path):
    one = made(tmp_path / 'one')
    (one / 'best_top5_iter_4.pth').touch()
    info = {'best_score_top1': 99.5, 'best_ckpt_top1': 'best_top1_iter_2.pth'}
    info |= {'best_score_top5': 1.0, 'best_ckpt_top5': str(tmp_path / 'best_top5_iter_4.pth')}
    noted = improve(one, one / 'iter_6.pth', info, save_best=['top1', 'top5'])
    assert names_in(one) == {*FILES, 'best_top5_iter_8.pth'}
    assert noted['best_score_top1'] == 99.5 and noted['best_score_top5'] == 99.0


def test_the_score_of_another_metric_is_no_best_score(tmp_path):
    one = made(tmp_path / 'one')
    noted = improve(one, one / 'iter_6.pth', {'best_score': 100.0, 'best_ckpt': 'best_top5_iter_2.pth'})
    assert noted['best_ckpt'] == 'best_top1_iter_8.pth'


def test_a_metric_that_is_not_measured_is_named(tmp_path):
    with pytest.raises(UserError, match=r'best mIoU, which validation does not compute.* one of top1, top5'):
        improve(made(tmp_path / 'one'), None, {}, save_best='mIoU', rule='greater')


def test_the_former_best_stays_where_the_new_one_cannot_be_written(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise UserError('the disk is full')

    one = made(tmp_path / 'one')
    monkeypatch.setattr(SavesNames, 'save_checkpoint', full)
    with pytest.raises(UserError, match='the disk is full'):
        improve(one, one / 'iter_6.pth', {'best_score': 1.0, 'best_ckpt': 'best_top1_iter_2.pth'})
    assert names_in(one) == set(FILES)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two checkpoints; iter_4 is the newest."""
    for number in (2, 4):
        torch.save({'state_dict': {}, 'meta': {'iter': number}}, tmp_path / f'iter_{number}.pth')
    return tmp_path


@pytest.mark.parametrize(
    'pointer',
    [b'', b'\xff\xfe\x00', b'iter_9.pth', b'..', b'/', b'../iter_2.txt', b'a\0b', 5000 * b'x', b'\n\n', b'.'],
)
def test_a_pointer_that_names_no_checkpoint_is_passed_over(folder, pointer):
    (folder / 'last_checkpoint').write_bytes(pointer)
    assert newest_checkpoint(folder) == last_checkpoint(folder) == folder / 'iter_4.pth'


@pytest.mark.parametrize('pointer', [b'', b'\xff', b'iter_9.pth', b'/elsewhere/iter_9.pth'])
def test_a_pointer_beside_no_checkpoints_is_one_sentence(tmp_path, pointer):
    (tmp_path / 'last_checkpoint').write_bytes(pointer)
    for look in (newest_checkpoint, last_checkpoint):
        with pytest.raises(UserError, match=r'last_checkpoint') as error:
            look(tmp_path)
        assert '\n' not in str(error.value)


def test_a_pointer_that_is_a_folder_is_passed_over(folder):
    (folder / 'last_checkpoint').mkdir()
    assert newest_checkpoint(folder) == folder / 'iter_4.pth'


def test_a_pointer_into_another_folder_means_the_file_of_that_name_in_this_one(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp('elsewhere')
    shutil.copy(folder / 'iter_2.pth', elsewhere)
    (folder / 'last_checkpoint').write_text(f'{elsewhere}/iter_2.pth\r\n')
    assert newest_checkpoint(folder) == folder / 'iter_2.pth'


def test_a_pipe_of_a_checkpoints_name_is_not_waited_for(folder):
    os.mkfifo(folder / 'iter_6.pth')
    os.mkfifo(folder / 'last_checkpoint')
    assert newest_checkpoint(folder) == folder / 'iter_4.pth'


SCORED = RANDOM | {'train_cfg.val_interval': 2, 'default_hooks.checkpoint.save_best': 'top1'}


def trained(make_runner, work_dir: Path, iterations: int, **options) -> Runner:
    runner = make_runner(iterations, **SCORED | {'work_dir': str(work_dir)} | options)
    runner.train()
    return runner


@pytest.fixture
def better(monkeypatch):
    """Every validation is better than the one before."""
    scores = iter(range(1, 100))
    original = ResumableCheckpointHook.after_val_epoch
    monkeypatch.setattr(
        ResumableCheckpointHook,
        'after_val_epoch',
        lambda self, runner, metrics: original(self, runner, {'top1': float(next(scores))}),
    )


def test_a_run_leaves_alone_what_it_resumed_from_and_a_copy_stands_for_itself(make_runner, tmp_path, better):
    one = Path(trained(make_runner, tmp_path / 'one', 2).work_dir)
    assert (one / 'last_checkpoint').read_text() == 'iter_2.pth'
    shutil.copytree(one, tmp_path / 'copy')
    kept = names_in(one)
    other = trained(make_runner, tmp_path / 'other', 4, resume=True, load_from=str(one / 'iter_2.pth'))
    copy = trained(make_runner, tmp_path / 'copy', 4, resume=True)
    assert names_in(one) == kept
    assert copy.resumed_from == tmp_path / 'copy/iter_2.pth'
    for runner in (other, copy):
        best = [name for name in names_in(Path(runner.work_dir)) if name.startswith('best')]
        assert best == ['best_top1_iter_4.pth']
        assert not any('/' in str(value) for name, value in runner.message_hub.runtime_info.items() if 'ckpt' in name)


def test_a_copy_that_shares_its_files_changes_none_of_the_first(make_runner, tmp_path, better):
    """As `cp -al` makes one."""
    one = Path(trained(make_runner, tmp_path / 'one', 2).work_dir)
    shutil.copytree(one, tmp_path / 'copy', copy_function=os.link)
    kept = {path: path.read_bytes() for path in one.iterdir() if path.is_file() and path.name != 'run.lock'}
    trained(make_runner, tmp_path / 'copy', 4, resume=True, **{'default_hooks.checkpoint.max_keep_ckpts': 1})
    assert {path: path.read_bytes() for path in kept} == kept
    assert 'max_iters=4' in Path(tmp_path, 'copy/pretrain.py').read_text()


def test_a_checkpoint_executes_nothing(make_runner, tmp_path, better):
    one = Path(trained(make_runner, tmp_path / 'one', 2).work_dir)
    path = one / 'iter_2.pth'
    checkpoint = torch.load(path, weights_only=False)
    code = f'import os\nos.mkdir({str(tmp_path / "executed")!r})\n'
    checkpoint['meta'] |= {'config': code, 'cfg': code, 'experiment_name': code}
    (tmp_path / 'precious').mkdir()
    checkpoint['message_hub']['runtime_info'] |= {
        'cfg': code,
        'best_ckpt': str(tmp_path / 'precious'),
        'last_ckpt': str(tmp_path / 'precious'),
        'keep_ckpt_ids': [2],
    }
    torch.save(checkpoint, path)
    resumed = trained(make_runner, one, 4, resume=True, load_from=str(path))
    trained(make_runner, tmp_path / 'loaded', 2, load_from=str(path))
    assert (tmp_path / 'precious').is_dir() and not (tmp_path / 'executed').exists()
    assert 'mkdir' not in str(resumed.message_hub.runtime_info['cfg'])
