"""Processes that end with the one that started them, and that speak once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tokenlabel.cli.boundary import reports_errors
from tokenlabel.errors import UserError
from tokenlabel.processes import launcher as processes
from tokenlabel.processes.launcher import LAUNCHER, SHARED_FOLDER

MODULE = processes.__file__
# A launcher with one process, which has a child that ends with it; both write down their numbers, then wait.
PROCESS = """
import os, runpy, time
from pathlib import Path
module = runpy.run_path({module!r})  # without the package, which imports torch
module['end_with_launcher']()
parent = os.getpid()
if os.fork() == 0:
    module['end_with_parent'](parent)
    Path({folder!r}, 'child').write_text(str(os.getpid()))
else:
    Path({folder!r}, 'process').write_text(str(os.getpid()))
time.sleep(600)
"""
LAUNCHES = """
import os, subprocess, sys
os.environ['TOKENLABEL_LAUNCHER'] = str(os.getpid())
subprocess.run([sys.executable, '-S', '-c', sys.argv[1]])
"""


def number_in(file: Path) -> int:
    while not (file.is_file() and file.read_text()):
        time.sleep(0.02)
    return int(file.read_text())


def is_running(number: int) -> bool:
    try:
        return Path(f'/proc/{number}/stat').read_text().rsplit(')', 1)[1].split()[0] not in 'ZX'
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != 'linux', reason='the kernel is not Linux')
def test_a_launcher_that_is_killed_takes_its_processes_and_their_workers_with_it(tmp_path):
    code = PROCESS.format(module=MODULE, folder=str(tmp_path))
    launcher = subprocess.Popen([sys.executable, '-S', '-c', LAUNCHES, code])
    numbers = [number_in(tmp_path / 'process'), number_in(tmp_path / 'child')]
    launcher.kill()
    launcher.wait()
    until = time.monotonic() + 60
    while any(map(is_running, numbers)) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(map(is_running, numbers))


@pytest.mark.skipif(sys.platform != 'linux', reason='the kernel is not Linux')
def test_a_process_whose_launcher_ended_before_it_began_ends(tmp_path):
    gone = subprocess.Popen([sys.executable, '-S', '-c', ''])
    gone.wait()
    code = PROCESS.format(module=MODULE, folder=str(tmp_path))
    ended = subprocess.run([sys.executable, '-S', '-c', code], env=os.environ | {LAUNCHER: str(gone.pid)})
    assert ended.returncode == -signal.SIGKILL


@reports_errors
def fail(error: Exception) -> None:
    raise error


def test_the_first_of_several_processes_that_fails_speaks(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(SHARED_FOLDER, str(tmp_path))
    for error, status in ((UserError('the disk is full'), 2), (UserError('the disk is full'), 2), (OSError('lost'), 1)):
        assert fail(error) == status
    assert capsys.readouterr().err == 'error: the disk is full\n'
    monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', '1')
    assert fail(UserError('it still is')) == 2
    assert capsys.readouterr().err == 'error: it still is\n'


def test_processes_speak_when_the_folder_of_their_launch_has_gone(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(SHARED_FOLDER, str(tmp_path / 'gone'))
    assert fail(UserError('the disk is full')) == 2
    assert capsys.readouterr().err == 'error: the disk is full\n'
