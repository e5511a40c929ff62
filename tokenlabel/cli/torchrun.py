"""Runs torchrun so that the message of a failed process is the last line of the output.

torchrun itself would print a traceback and a report without the reason. If several processes fail, only the first error
is printed. The exit status is that of the process that failed first: 2 after bad input, 128 + n after signal n.

Signals (including SIGUSR1, if torch has `--signals-to-handle`) are passed on to the processes, which then have 30 s to
end; the exit status is 128 + n. A second signal ends all processes at once. They also end if this process is killed.
"""

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from types import FrameType

from torch.distributed.elastic.multiprocessing import api
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as run_elastic

from tokenlabel.processes.launcher import LAUNCHER, SHARED_FOLDER


def main() -> int:
    for name in ('agent.server.api', 'multiprocessing.api'):  # the processes report errors themselves
        logging.getLogger(f'torch.distributed.elastic.{name}').setLevel(logging.CRITICAL)
    os.environ.setdefault('PET_SIGNALS_TO_HANDLE', 'SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1')
    os.environ[LAUNCHER] = str(os.getpid())
    api._terminate_process_handler = partial(end_processes, api._terminate_process_handler)
    with tempfile.TemporaryDirectory(prefix='torchrun-') as folder:
        os.environ[SHARED_FOLDER] = folder
        try:
            run_elastic()
        except SignalException as error:
            raise SystemExit(128 + error.sigval) from None
        except KeyboardInterrupt:
            raise SystemExit(130) from None
        except ChildFailedError as error:
            raise SystemExit(status_of(error)) from None


def end_processes(handler: Callable, number: int, frame: FrameType | None) -> None:
    """Calls torch's signal handler, which waits for the processes; a second Ctrl-C ends this process at once."""
    if number == signal.SIGINT:
        signal.signal(signal.SIGINT, lambda *_: os._exit(128 + signal.SIGINT))
    handler(number, frame)


def status_of(error: ChildFailedError) -> int:
    """The exit status after failed processes. Prints an error for a process that could not, because it was killed."""
    said = {failure.exitcode for failure in error.failures.values()} & {2, 128 + signal.SIGINT}
    if said:  # bad input or Ctrl-C, which the process has reported; errors of the others are consequences
        return min(said)
    rank, failure = error.get_first_failure()
    if failure.exitcode < 0:
        name = signal.Signals(-failure.exitcode).name
        reason = ' (the machine may have run out of memory)' if name == 'SIGKILL' else ''
        print(f'error: process {rank} was killed by {name}{reason}; use --resume to continue.', file=sys.stderr)
        return 128 - failure.exitcode
    print(f'error: process {rank} failed; its traceback is above.', file=sys.stderr)
    return failure.exitcode
