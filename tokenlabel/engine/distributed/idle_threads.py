"""Makes forks and exits of a process wait until its gloo threads are idle."""

import atexit
import functools
import os
import time


@functools.cache
def wait_for_idle_threads() -> None:
    """Makes every later fork, and the exit, of this process wait for gloo threads that are releasing a tensor.

    A gloo thread that releases a tensor takes the GIL and registers with the interpreter. A process forked at this
    moment hangs, and one that exits is aborted. Both were seen with Python 3.11: a loader's worker hung in
    `PyOS_AfterFork_Child`; "terminate called without an active exception" followed the last collective.
    """
    os.register_at_fork(before=let_threads_finish)
    atexit.register(let_threads_finish)


def let_threads_finish() -> None:
    """Sleeps without the GIL, so that threads can take it; they need only microseconds."""
    time.sleep(0.02)
