"""Forks and exits of a process whose threads pass tensors between processes wait until these threads are idle."""

import atexit
import functools
import os
import time


@functools.cache
def wait_for_idle_threads() -> None:
    """From now on every fork of this process, and its end, waits for threads that have just handed back a tensor.

    A thread of gloo that lets go of a tensor takes Python's lock for it and registers with the interpreter meanwhile.
    A process that is forked in this moment never gets past its first step, and one that ends is aborted. Both were seen
    with Python 3.11: a loader's worker waited for ever in `PyOS_AfterFork_Child`; "terminate called without an active
    exception" after the last collective.
    """
    os.register_at_fork(before=let_threads_finish)
    atexit.register(let_threads_finish)


def let_threads_finish() -> None:
    """Waits without Python's lock, for threads that need it; microseconds are enough for them."""
    time.sleep(0.02)
