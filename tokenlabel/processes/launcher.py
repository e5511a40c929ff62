"""Processes of a distributed run: they end together with their launcher, and only the first error is reported."""

import ctypes
import os
import signal
import sys
from pathlib import Path

# Set by `tools/torchrun.py` for the processes that it starts: its process id, and a folder that they share.
LAUNCHER = 'TOKENLABEL_LAUNCHER'
SHARED_FOLDER = 'TOKENLABEL_LAUNCH_FOLDER'
PR_SET_PDEATHSIG = 1  # from linux/prctl.h


def end_with_launcher() -> None:
    """Makes the kernel kill this process when torchrun ends for any reason; no effect without torchrun."""
    launcher = int(os.environ.get(LAUNCHER, 0))
    if launcher == os.getppid():
        end_with_parent(launcher)
    elif launcher:
        try:
            os.kill(launcher, 0)
        except ProcessLookupError:  # it ended while this process started
            os.kill(os.getpid(), signal.SIGKILL)


def end_with_parent(parent: int) -> None:
    """Makes the kernel kill this process when its parent ends; no effect outside Linux.

    Args:
        parent: process id of the parent that started this process.
    """
    if sys.platform != 'linux':
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def speaks_first() -> bool:
    """Whether this process should report its error: it is the first of torchrun's processes on this machine to fail.

    The other processes fail later with the same error, or because a process is gone.
    """
    folder = os.environ.get(SHARED_FOLDER)
    if folder is None:
        return True
    attempt = os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')
    try:
        Path(folder, f'error-{attempt}').touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:  # the folder has gone with the launcher
        pass
    return True
