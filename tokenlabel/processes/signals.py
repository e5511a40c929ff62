"""Ending a command at a signal: an exception in the main thread, so that temporary files go."""

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
# Launchers and terminals send several signals for one request: what follows so soon must not disturb the cleaning up.
ONE_REQUEST = 3.0  # seconds


class Stopped(KeyboardInterrupt):
    """A signal has asked the command to end; whatever handles Ctrl-C handles this.

    Attributes:
        signal: which one.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)


@contextmanager
def stops_at_signals() -> Iterator[None]:
    """Meanwhile SIGINT, SIGTERM and SIGHUP raise `Stopped`; a signal that is ignored (`nohup`) stays ignored.

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
        # after a signal the handler stays, for those that follow while the process ends
        if last == -math.inf:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def when_stopped(sentence: Callable[[], str]) -> Iterator[None]:
    """Notes what to say where Ctrl-C or a signal ends the block, such as how to resume; the inner note counts."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if not getattr(stop, '__notes__', ()):
            with suppress(Exception):  # a count that cannot be had now must not hide why the command ends
                stop.add_note(sentence())
        raise


def status_of(stop: KeyboardInterrupt) -> int:
    """The exit status, 128 and the signal's number: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + getattr(stop, 'signal', signal.SIGINT)


def farewell(stop: KeyboardInterrupt) -> str | None:
    """The one line that a stopped command says; None where another of several processes says it."""
    numbers = (os.environ.get(name) for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'))
    if next(filter(None, numbers), '0') != '0':
        return None
    name = getattr(stop, 'signal', signal.SIGINT).name
    by = '' if name == 'SIGINT' else f' by {name}'
    notes = getattr(stop, '__notes__', ())
    return f'Stopped{by}: {notes[0]}' if notes else f'Stopped{by}.'


def leave_signals_to_parent(worker: int = 0) -> None:
    """`worker_init_fn` of a loader: signals that reach all processes of a job end a worker only through its parent.

    A worker that died of them first would turn the parent's one sentence into an error of the loader. A worker ends
    when its parent says so, and when it ends. A parent that a signal interrupts while it takes a batch is no news
    either.
    """
    sys.excepthook = partial(_print_unless_parent_left, sys.excepthook)
    parent = parent_process()
    if parent is not None and parent.pid == os.getppid():  # and not a server that forks for it
        end_with_parent(parent.pid)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, 'sigwaitinfo'):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_end_when_the_parent_says_so, daemon=True).start()


def _print_unless_parent_left(print_error: Callable, kind: type, error: BaseException, trace: TracebackType) -> None:
    """An `excepthook`; the thread that hands batches to the parent reports here that it hung up."""
    if not issubclass(kind, ConnectionError | EOFError):
        print_error(kind, error, trace)


def _end_when_the_parent_says_so() -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
        pass
    os._exit(0)


def _end_by(number: int, handler: object) -> None:
    """Lets a signal do what it does under this handler."""
    signal.signal(number, handler)
    os.kill(os.getpid(), number)
