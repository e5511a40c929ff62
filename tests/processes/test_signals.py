"""Signals end a command as Ctrl-C does: in order, with one line, its status, and once."""

import os
import signal
import socket
import struct
import sys
import time
from multiprocessing import resource_sharer

import pytest

from tests.child_process import ForkedCommand, run_forked
from tokenlabel.cli.boundary import reports_errors
from tokenlabel.processes.signals import Stopped, leave_signals_to_parent, stops_at_signals, when_stopped


@reports_errors
def sleeper(folder, children: int = 0) -> None:
    """A command that says when it works, and cleans up slowly when it is stopped."""
    for _ in range(children):
        if os.fork() == 0:
            leave_signals_to_parent()
            time.sleep(30)
            os._exit(0)
    with when_stopped(lambda: 'the same command resumes.'):
        try:
            (folder / 'works').touch()
            time.sleep(30)
        finally:
            time.sleep(0.3)
            (folder / 'clean').touch()


@pytest.mark.parametrize(
    ('number', 'status', 'line'),
    [
        (signal.SIGINT, 130, 'Stopped: the same command resumes.\n'),
        (signal.SIGTERM, 143, 'Stopped by SIGTERM: the same command resumes.\n'),
        (signal.SIGHUP, 129, 'Stopped by SIGHUP: the same command resumes.\n'),
    ],
)
def test_a_signal_is_one_line_and_its_status(tmp_path, number, status, line):
    child = ForkedCommand(tmp_path, sleeper, tmp_path)
    child.wait_until((tmp_path / 'works').exists)
    child.signal(number)
    assert (child.wait(), child.errors) == (status, line)
    assert (tmp_path / 'clean').exists()


def test_signals_that_follow_at_once_do_not_disturb_the_cleaning_up(tmp_path):
    child = ForkedCommand(tmp_path, sleeper, tmp_path)
    child.wait_until((tmp_path / 'works').exists)
    child.signal(signal.SIGINT)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        child.signal(number)
    assert child.wait() == 130
    assert (tmp_path / 'clean').exists()


def test_another_process_than_the_first_says_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv('RANK', '1')
    child = ForkedCommand(tmp_path, sleeper, tmp_path)
    child.wait_until((tmp_path / 'works').exists)
    child.signal(signal.SIGTERM)
    assert (child.wait(), child.errors) == (143, '')


def test_afterwards_signals_do_what_they_did():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with stops_at_signals():
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stops_at_signals():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_is_a_keyboard_interrupt_that_knows_its_name():
    with pytest.raises(KeyboardInterrupt) as stop:
        raise Stopped(signal.SIGTERM)
    assert stop.value.signal is signal.SIGTERM


def test_the_inner_note_counts_and_one_that_fails_is_left_out():
    with pytest.raises(KeyboardInterrupt) as stop, when_stopped(lambda: 'outer'), when_stopped(lambda: 'inner'):
        raise KeyboardInterrupt
    assert stop.value.__notes__ == ['inner']
    with pytest.raises(KeyboardInterrupt) as stop, when_stopped(lambda: 1 / 0):
        raise KeyboardInterrupt
    assert not hasattr(stop.value, '__notes__')


def worker(folder) -> None:
    leave_signals_to_parent()
    (folder / 'works').touch()
    time.sleep(30)


def test_a_worker_ends_by_its_parent_and_by_nobody_else(tmp_path):
    child = ForkedCommand(tmp_path, worker, tmp_path)
    child.wait_until((tmp_path / 'works').exists)
    for number in (signal.SIGINT, signal.SIGHUP):
        child.signal(number)
    stranger = os.fork()
    if stranger == 0:
        os.kill(child.pid, signal.SIGTERM)
        os._exit(0)
    os.waitpid(stranger, 0)
    time.sleep(0.3)
    assert os.waitpid(child.pid, os.WNOHANG) == (0, 0)
    child.signal(signal.SIGTERM)
    assert child.wait() == 0


def hands_over(folder) -> None:
    """A worker whose parent hangs up while it takes a tensor, as one that is stopped does."""
    leave_signals_to_parent()
    descriptor = resource_sharer.DupFd(1)
    address, _ = descriptor._id
    client = socket.socket(socket.AF_UNIX)
    client.connect(address)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    client.close()
    time.sleep(0.5)
    if folder.name == 'fails':
        sys.excepthook(ValueError, ValueError('another error'), None)


def test_a_worker_whose_parent_hangs_up_prints_nothing(tmp_path):
    done = run_forked(tmp_path, hands_over, tmp_path)
    assert (done.returncode, done.stderr) == (0, '')
    (tmp_path / 'fails').mkdir()
    assert 'another error' in run_forked(tmp_path, hands_over, tmp_path / 'fails').stderr
