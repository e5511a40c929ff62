"""Runs torchrun with its arguments; where a process fails, what that process said is the last word.

torchrun itself would end with a traceback of its own and a report that holds no reason. This one ends with the exit
status of the process that failed first: 2 after bad input, 128 + n after signal n. A signal to it, SIGUSR1 too where
torch has `--signals-to-handle`, goes to the processes, which then have 30 s; it ends with 128 + n.
"""

import logging
import os
import signal
import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main


def run() -> None:
    logging.getLogger('torch.distributed.elastic.multiprocessing.api').setLevel(logging.CRITICAL)
    os.environ.setdefault('PET_SIGNALS_TO_HANDLE', 'SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1')
    try:
        main()
    except SignalException as error:
        raise SystemExit(128 + error.sigval) from None
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            reason = ' (the machine may have run out of memory)' if name == 'SIGKILL' else ''
            print(f'error: process {rank} was ended by {name}{reason}; --resume goes on.', file=sys.stderr)
            raise SystemExit(128 - failure.exitcode) from None
        if failure.exitcode != 2:  # bad input has been told
            print(f'error: process {rank} failed; its traceback is above.', file=sys.stderr)
        raise SystemExit(failure.exitcode) from None


if __name__ == '__main__':
    run()
