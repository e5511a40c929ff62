"""Starting the workers of a loader in a process whose threads pass tensors between processes."""

import time


def let_threads_finish() -> None:
    """To be called before a fork: waits, without Python's lock, for threads that have just handed back a tensor.

    A thread of gloo that lets go of a tensor takes Python's lock for it and registers with the interpreter meanwhile. A
    process that is forked in this moment never gets past its first step (seen with Python 3.11: a loader's worker
    waited for ever in `PyOS_AfterFork_Child`). The threads need microseconds.
    """
    time.sleep(0.02)
