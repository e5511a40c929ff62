"""Robust standard streams: they may be closed, broken, full, or unable to encode a character."""

import os
import select
import sys
from contextlib import suppress


def prepare_streams() -> None:
    """Makes stdout and stderr accept any text: escapes what they cannot encode, and opens closed ones on `/dev/null`.

    File names may contain bytes that cannot be encoded. A closed descriptor would be reused by the next file that is
    opened, and output would be written into that file.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    for name in ('stdout', 'stderr'):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, 'w'))  # noqa: SIM115 - stays open until the process ends
        elif hasattr(stream, 'reconfigure') and stream.errors != 'backslashreplace':
            stream.reconfigure(errors='backslashreplace')


def nobody_reads() -> bool:
    """Whether stdout or stderr is a pipe whose reader has closed it, such as `| head`."""
    poll = select.poll()
    for descriptor in (1, 2):
        poll.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def finish_stdout() -> None:
    """Flushes stdout. Discards what cannot be written, so that Python does not report an error at exit."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)


def say(line: str) -> None:
    """Prints a line on stderr; does nothing if that fails."""
    with suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)
