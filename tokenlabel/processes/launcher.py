"""What a process owes to the others of its run: it ends with the one that started it, and one of them speaks."""

import ctypes
import os
import signal
import sys
from pathlib import Path

# Set by `tools/torchrun.py` for the processes that it starts: its process number, and a folder that they share.
LAUNCHER = 'TOKENLABEL_LAUNCHER'
SHARED_FOLDER = 'TOKENLABEL_LAUNCH_FOLDER'
PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def end_with_launcher() -> None:
    """Lets this process be killed when torchrun ends, however that ends. Other processes are left alone."""
    launcher = int(os.environ.get(LAUNCHER, 0))
    if launcher == os.getppid():
        end_with_parent(launcher)
    elif launcher:
        try:
            os.kill(launcher, 0)
        except ProcessLookupError:  # it ended while this process started
            os.kill(os.getpid(), signal.SIGKILL)


def end_with_parent(parent: int) -> None:
    """Lets the kernel kill this process when its parent ends; nothing where the kernel is not Linux.

    Args:
        parent: the process number that the parent had when it started this one.
    """
    if sys.platform != 'linux':
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def speaks_first() -> bool:
    """Whether no other process that torchrun started on this machine has reported an error; the first one does.

    What follows in the others is the same error, or that a process is gone.
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
