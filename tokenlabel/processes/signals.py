"""Signals end a command by an exception in the main thread, so that temporary files are removed."""

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import parent_process
from types import TracebackType

from tokenlabel.processes.launcher import end_with_parent

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Launchers and terminals send several signals at once. Those within this time must not interrupt the clean-up.
ONE_REQUEST = 3.0  # seconds


class Stopped(KeyboardInterrupt):
    """Raised at SIGTERM and SIGHUP; a subclass of `KeyboardInterrupt`, so code that handles Ctrl-C handles it.

    Attributes:
        signal: which one.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)


@contextmanager
def stops_at_signals() -> Iterator[None]:
    """Within the block SIGINT, SIGTERM and SIGHUP raise `Stopped`; ignored signals (`nohup`) stay ignored.

    What follows a signal within three seconds counts as the same request. Forked processes, such as a loader's workers,
    leave SIGINT and SIGHUP, which a terminal sends to all, to this process, which ends them. Only a main thread can
    listen; elsewhere nothing happens.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    own, last, listening = os.getpid(), -math.inf, True
    before = {number: signal.getsignal(number) for number in SIGNALS}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}

    def stop(number: int, frame: object) -> None:
        nonlocal last
        if os.getpid() != own:
            if number == signal.SIGTERM:
                _end_by(number, signal.SIG_DFL)
            return
        if time.monotonic() - last < ONE_REQUEST:
            return
        if not listening:
            _end_by(number, before[number])
            return
        last = time.monotonic()
        raise Stopped(number)

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        listening = False
        # after a signal the handler stays, for signals that arrive while the process ends
        if last == -math.inf:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def when_stopped(sentence: Callable[[], str]) -> Iterator[None]:
    """Sets the message for a block that is ended by a signal, such as how to resume; the innermost one is shown."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if not getattr(stop, '__notes__', ()):
            with suppress(Exception):  # an error in the message must not hide why the command ends
                stop.add_note(sentence())
        raise


def status_of(stop: KeyboardInterrupt) -> int:
    """The exit status, 128 + signal number: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + getattr(stop, 'signal', signal.SIGINT)


def farewell(stop: KeyboardInterrupt) -> str | None:
    """The line that a stopped command prints; None if another process prints it."""
    numbers = (os.environ.get(name) for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'))
    if next(filter(None, numbers), '0') != '0':
        return None
    name = getattr(stop, 'signal', signal.SIGINT).name
    by = '' if name == 'SIGINT' else f' by {name}'
    notes = getattr(stop, '__notes__', ())
    return f'Stopped{by}: {notes[0]}' if notes else f'Stopped{by}.'


def leave_signals_to_parent(worker: int = 0) -> None:
    """`worker_init_fn` of a loader: a worker ignores signals to the whole job and ends with its parent.

    If a worker died first, the parent would report an error of the loader instead of its own message. A worker ends
    when its parent terminates it or is gone. Connections that an interrupted parent closes are not reported.
    """
    sys.excepthook = partial(_print_unless_parent_left, sys.excepthook)
    parent = parent_process()
    if parent is not None and parent.pid == os.getppid():  # not a fork server
        end_with_parent(parent.pid)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, 'sigwaitinfo'):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_end_when_the_parent_says_so, daemon=True).start()


def _print_unless_parent_left(print_error: Callable, kind: type, error: BaseException, trace: TracebackType) -> None:
    """`sys.excepthook` of a worker: hides the errors of a connection that the parent has closed."""
    if not issubclass(kind, ConnectionError | EOFError):
        print_error(kind, error, trace)


def _end_when_the_parent_says_so() -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
        pass
    os._exit(0)


def _end_by(number: int, handler: object) -> None:
    """Ends this process by a signal, with the effect that the signal has under `handler`."""
    signal.signal(number, handler)
    os.kill(os.getpid(), number)
