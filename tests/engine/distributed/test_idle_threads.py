"""Threads that need Python's lock get it before a process forks and before it ends."""

import subprocess
import sys

import pytest

SCRIPT = """
import os, sys, threading
from tokenlabel.engine.distributed.idle_threads import wait_for_idle_threads

wait_for_idle_threads()
sys.setswitchinterval(1000)  # no thread takes the lock from another
started, handed_back = threading.Event(), threading.Event()

def hold():
    started.set()
    handed_back.wait()
    os.write(1, b'let go, ')

threading.Thread(target=hold, daemon=True).start()
started.wait()
handed_back.set()
"""


@pytest.mark.parametrize(
    ('end', 'said'),
    [('', 'let go, '), ('os.write(1, b"parent" if os.fork() else b""); os._exit(0)', 'let go, parent')],
    ids=['end', 'fork'],
)
def test_a_thread_lets_go_before(end, said):
    done = subprocess.run([sys.executable, '-c', SCRIPT + end], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == (said, 0), done.stderr
