"""Converts signals to an exception in the main thread, so that a stopped command removes its temporary files."""

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
# Launchers and terminals send several signals at once. Signals within this time must not interrupt the clean-up.
ONE_REQUEST = 3.0  # seconds


class Stopped(KeyboardInterrupt):
    """Raised for a signal; a subclass of `KeyboardInterrupt`, so code that handles Ctrl-C handles it.

    Attributes:
        signal: the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)


@contextmanager
def stops_at_signals() -> Iterator[None]:
    """Within the block SIGINT, SIGTERM and SIGHUP raise `Stopped`; ignored signals (`nohup`) stay ignored.

    Further signals within three seconds are ignored. Forked processes, such as DataLoader workers, ignore SIGINT and
    SIGHUP, because a terminal sends these to all processes and this process ends its workers. No effect outside the
    main thread.
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
        # after a signal the handler stays, because more signals may arrive while the process ends
        if last == -math.inf:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def when_stopped(sentence: Callable[[], str]) -> Iterator[None]:
    """Sets the message for a signal within the block, such as how to resume. Of nested blocks the innermost counts."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if not getattr(stop, '__notes__', ()):
            with suppress(Exception):  # an error in `sentence` must not hide why the command ends
                stop.add_note(sentence())
        raise


def status_of(stop: KeyboardInterrupt) -> int:
    """The exit status, 128 + signal number: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + getattr(stop, 'signal', signal.SIGINT)


def farewell(stop: KeyboardInterrupt) -> str | None:
    """The line that a stopped command prints; None on all ranks but 0."""
    numbers = (os.environ.get(name) for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'))
    if next(filter(None, numbers), '0') != '0':
        return None
    name = getattr(stop, 'signal', signal.SIGINT).name
    by = '' if name == 'SIGINT' else f' by {name}'
    notes = getattr(stop, '__notes__', ())
    return f'Stopped{by}: {notes[0]}' if notes else f'Stopped{by}.'


def leave_signals_to_parent(worker: int = 0) -> None:
    """`worker_init_fn` of a DataLoader: a worker ignores signals to the whole job and ends with its parent.

    If a worker died first, the parent would report an error of the DataLoader instead of its own message. A worker ends
    when its parent terminates it or is gone. It does not report connections that its parent has closed.
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
