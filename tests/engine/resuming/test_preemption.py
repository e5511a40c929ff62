"""Signals: the step is finished, a checkpoint is written, and the run resumes from it."""

import os
import signal
import subprocess
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from torch.utils.data import DataLoader, TensorDataset

from tests.engine.resuming.interruptions import RANDOM, differences
from tests.two_processes import in_two_processes
from tokenlabel.engine.resuming import preemption
from tokenlabel.engine.resuming.preemption import StopOnSignal, requeue, start_worker


class Signalled(Hook):
    """Sends this process a signal before it takes the step after `iteration`."""

    def __init__(self, number: int, iteration: int) -> None:
        self.number, self.iteration = number, iteration

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if batch_idx == self.iteration:
            os.kill(os.getpid(), self.number)


def test_a_signal_ends_the_run_with_a_checkpoint_that_it_goes_on_from(make_runner, tmp_path):
    options = RANDOM | {'default_hooks.checkpoint.interval': 100, 'train_cfg.val_interval': 100}
    whole = make_runner(iterations=6, **options | {'work_dir': str(tmp_path / 'whole')})
    whole.train()
    # of another name, as MMEngine's loggers of two runs that start in one second are one
    stopped = make_runner(iterations=6, **options, experiment_name='stopped', log_level='WARNING')
    stopped.register_hook(Signalled(signal.SIGTERM, 2))
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end:
        stopped.train()
    assert end.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is handler
    # two iterations are a step: the second of them is awaited
    assert [path.name for path in Path(stopped.work_dir).glob('*.pth')] == ['iter_4.pth']
    said = Path(stopped.log_dir, f'{stopped.timestamp}.log').read_text()
    assert 'SIGTERM: training stops after iteration 4' in said
    make_runner(iterations=6, **options, resume=True).train()
    assert differences(Path(whole.work_dir, 'iter_6.pth'), Path(stopped.work_dir, 'iter_6.pth')) == []


def fake_runner(rank: int, distributed: bool) -> SimpleNamespace:
    runner = SimpleNamespace(distributed=distributed, rank=rank, hooks=[], iter=0, said=[])
    runner.logger = SimpleNamespace(warning=runner.said.append)
    runner.visualizer = SimpleNamespace(close=lambda: None)
    runner.optim_wrapper = SimpleNamespace(should_update=lambda: runner.iter % 2 == 1)
    return runner


def train_until_one_is_signalled(rank: int, folder: Path) -> None:
    runner, hook = fake_runner(rank, distributed=True), StopOnSignal()
    with hook.listening(), pytest.raises(SystemExit):
        hook.before_train(runner)
        for runner.iter in range(100):
            if runner.iter == 10 and rank == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            hook.after_train_iter(runner, runner.iter)
    (folder / f'{rank}.txt').write_text(f'{runner.iter}')


def test_all_processes_stop_after_the_same_step_when_one_is_signalled(tmp_path):
    in_two_processes(train_until_one_is_signalled, tmp_path)
    # the step of iterations 10 and 11 asks, the next one knows
    assert [(tmp_path / f'{rank}.txt').read_text() for rank in (0, 1)] == ['13', '13']


def test_a_run_in_another_thread_than_the_main_one_does_not_listen():
    def listen() -> None:
        with StopOnSignal().listening():
            handlers.append(signal.getsignal(signal.SIGTERM))

    handlers = []
    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGTERM)]


def test_workers_outlive_a_signal_to_all_processes_of_a_job():
    loader = DataLoader(
        TensorDataset(torch.arange(8)), batch_size=1, num_workers=1, worker_init_fn=partial(start_worker, None)
    )
    batches = iter(loader)
    next(batches)
    worker = batches._workers[0]
    for name in ('TERM', 'USR1', 'INT'):
        subprocess.run(['kill', f'-{name}', str(worker.pid)], check=True)
    assert len(list(batches)) == 7


def test_workers_end_when_their_parent_says_so():
    loader = DataLoader(TensorDataset(torch.arange(99)), num_workers=1, worker_init_fn=partial(start_worker, None))
    batches = iter(loader)
    next(batches)
    worker = batches._workers[0]
    worker.terminate()
    worker.join(60)
    assert worker.exitcode == 0


@pytest.fixture
def slurm(tmp_path, monkeypatch) -> Path:
    """A Slurm whose `scontrol` writes down what it is told, and fails where there is a file `refuses`."""
    command = tmp_path / 'scontrol'
    command.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/told\n[ ! -e {tmp_path}/refuses ] || {{ echo "no batch job" >&2; exit 1; }}'
    )
    command.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')
    monkeypatch.setenv('SLURM_JOB_ID', '123')
    return tmp_path


def stop(received: signal.Signals, rank: int = 0) -> list[str]:
    runner, hook = fake_runner(rank, distributed=False), StopOnSignal()
    runner.iter = 1
    with hook.listening(), pytest.raises(SystemExit):
        os.kill(os.getpid(), received)
        hook.after_train_iter(runner, 1)
    return runner.said


@pytest.mark.parametrize(
    ('number', 'status'), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGUSR1, 0)]
)
def test_a_signal_ends_the_run_after_a_step_with_its_status(number, status):
    runner, hook = fake_runner(0, distributed=False), StopOnSignal()
    with hook.listening(), pytest.raises(SystemExit) as end:
        os.kill(os.getpid(), number)
        hook.after_train_iter(runner, 0)
        runner.iter = 1
        hook.after_train_iter(runner, 1)
    assert end.value.code == status
    assert [line.split(':')[0] for line in runner.said] == [number.name]


def test_a_signal_that_is_ignored_stays_ignored():
    """As SIGHUP under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopOnSignal().listening():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_processes_of_torchrun_end_with_0_after_a_signal_so_that_it_starts_none_anew(monkeypatch, number):
    monkeypatch.setenv('TORCHELASTIC_RUN_ID', 'none')
    runner, hook = fake_runner(0, distributed=False), StopOnSignal()
    runner.iter = 1
    with hook.listening(), pytest.raises(SystemExit) as end:
        os.kill(os.getpid(), number)
        hook.after_train_iter(runner, 1)
    assert end.value.code == 0


def test_a_second_ctrl_c_ends_the_run_at_once_and_the_echo_of_the_first_does_not(monkeypatch):
    hook = StopOnSignal()
    with hook.listening(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)  # from the launcher, while the terminal sent the first
        monkeypatch.setattr(preemption, 'SAME_INTERRUPT', 0.0)
        assert hook._received == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_during_validation_is_answered_once():
    runner, hook = fake_runner(0, distributed=False), StopOnSignal()
    with hook.listening():
        hook.before_val(runner)
        hook.after_val_iter(runner, 0)
        os.kill(os.getpid(), signal.SIGINT)
        hook.after_val_iter(runner, 1)
        hook.after_val_iter(runner, 2)
    assert runner.said == ['SIGINT: training stops after this validation; a second Ctrl-C ends it at once.']


def test_slurm_is_asked_to_run_the_job_again_by_the_first_process_at_sigusr1(slurm):
    stop(signal.SIGTERM)
    stop(signal.SIGUSR1, rank=1)
    assert not (slurm / 'told').exists()
    assert stop(signal.SIGUSR1)[-1] == 'Slurm job 123 is requeued.'
    assert (slurm / 'told').read_text() == 'requeue 123\n'


def test_a_job_that_slurm_does_not_run_again_is_said(slurm):
    (slurm / 'refuses').touch()
    assert stop(signal.SIGUSR1)[-1] == 'Slurm job 123 cannot be requeued (no batch job).'


def test_outside_of_slurm_nothing_is_asked(slurm, monkeypatch):
    monkeypatch.delenv('SLURM_JOB_ID')
    requeue(fake_runner(0, distributed=False))
    assert not (slurm / 'told').exists()
