"""Standard output and error that may be closed, broken, full, or unable to show a character."""

import os
import select
import sys
from contextlib import suppress


def prepare_streams() -> None:
    """Makes both streams fit for any text: what they cannot encode is escaped, a closed one swallows what it is given.

    File names may hold bytes that no encoding knows. A closed descriptor would become the next file that is opened,
    and print into it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    for name in ('stdout', 'stderr'):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, 'w'))  # noqa: SIM115 - for the rest of the process
        elif hasattr(stream, 'reconfigure') and stream.errors != 'backslashreplace':
            stream.reconfigure(errors='backslashreplace')


def nobody_reads() -> bool:
    """Whether standard output or error is a pipe whose reader has gone, as that of `| head` does."""
    poll = select.poll()
    for descriptor in (1, 2):
        poll.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def finish_stdout() -> None:
    """Writes what standard output still holds; what it does not take is dropped, of which Python would complain."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)


def say(line: str) -> None:
    """Prints a line on standard error, if anybody listens."""
    with suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)
