"""One run at a time in a work dir."""

import errno
import fcntl
import logging
import multiprocessing
import os
import socket
from pathlib import Path

import pytest
from torch import distributed

from tests.two_processes import in_two_processes
from tokenlabel.engine.resuming import sole_run as module
from tokenlabel.engine.resuming.sole_run import sole_run
from tokenlabel.errors import UserError


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(module, 'PATIENCE', 0.0)


def test_a_second_run_is_refused_with_folder_and_process(tmp_path):
    with sole_run(tmp_path), pytest.raises(UserError) as refused, sole_run(tmp_path):
        pass
    text = str(refused.value)
    assert f'{tmp_path} is in use by another run (process {os.getpid()} on {socket.gethostname()})' in text
    assert '--work-dir' in text and '\n' not in text


def test_the_folder_is_free_once_a_run_has_ended_well_or_not(tmp_path):
    with pytest.raises(ZeroDivisionError), sole_run(tmp_path):
        raise ZeroDivisionError
    with sole_run(tmp_path):
        pass


def hold(folder: Path, ready) -> None:
    with sole_run(folder):
        ready.set()
        multiprocessing.Event().wait()


def test_a_run_that_was_killed_holds_nothing(tmp_path):
    ready = multiprocessing.Event()
    process = multiprocessing.Process(target=hold, args=(tmp_path, ready))
    process.start()
    assert ready.wait(60)
    with pytest.raises(UserError, match=f'process {process.pid}'), sole_run(tmp_path):
        pass
    process.kill()
    process.join()
    with sole_run(tmp_path):
        pass


def outlive(ready) -> None:
    ready.set()
    multiprocessing.Event().wait()


def test_a_worker_that_outlives_its_run_holds_nothing_for_it(tmp_path):
    ready = multiprocessing.Event()
    with sole_run(tmp_path):
        worker = multiprocessing.Process(target=outlive, args=(ready,))
        worker.start()
        assert ready.wait(60)
    with sole_run(tmp_path):
        pass
    worker.kill()
    worker.join()


def test_a_file_system_without_locks_is_used_with_a_warning(tmp_path, monkeypatch):
    def unsupported(*_) -> None:
        raise OSError(errno.ENOLCK, 'No locks available')

    said = []
    monkeypatch.setattr(logging.Logger, 'warning', lambda self, line, *_: said.append(line))
    monkeypatch.setattr(fcntl, 'flock', unsupported)
    with sole_run(tmp_path), sole_run(tmp_path):
        pass
    assert len(said) == 2 and 'file system without locks (No locks available)' in said[0]


def test_a_lock_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / 'run.lock').mkdir()
    with pytest.raises(UserError, match=r'Cannot write to .*run\.lock'), sole_run(tmp_path):
        pass


def try_to_run(rank: int, folder: Path) -> None:
    module.PATIENCE = 0.0
    with sole_run(folder):  # one lock for both
        pass
    lock = open(folder / 'run.lock')  # noqa: SIM115
    if rank == 1:
        fcntl.flock(lock, fcntl.LOCK_EX)
    distributed.barrier()
    try:
        with sole_run(folder):
            pass
    except UserError as error:
        (folder / f'{rank}.txt').write_text(str(error))


def test_processes_of_a_run_share_its_lock_and_are_refused_together(tmp_path):
    in_two_processes(try_to_run, tmp_path)
    assert (tmp_path / '0.txt').read_text() == (tmp_path / '1.txt').read_text()
