"""The one exception for bad input, and how commands report it and end."""

import errno
import functools
import re
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec, TypeVar

from tokenlabel.processes import end_with_launcher, speaks_first
from tokenlabel.standard_streams import finish_stdout, nobody_reads, prepare_streams, say
from tokenlabel.stopping import farewell, status_of, stops_at_signals

P = ParamSpec('P')
R = TypeVar('R')

BUG = (
    'error: this is a bug of tokenlabel, not of your input: please report it with the command, the traceback above and '
    'the versions that `pip list` prints, at the issue tracker of the project.'
)
CLOSED_OUTPUT = 141  # as shells name a process that SIGPIPE has ended
# What a machine refuses, whoever asks, and what to do.
REFUSALS = {
    errno.ENOSPC: 'make room, or choose another place',
    errno.EDQUOT: 'make room, or choose another place',
    errno.EFBIG: 'make room, or choose another place',
    errno.EROFS: 'choose another place',
    errno.ENAMETOOLONG: 'give a shorter name',
    errno.ELOOP: 'give a name without links to itself',
    errno.EACCES: 'check its permissions',
    errno.EPERM: 'check its permissions',
    errno.EIO: 'check the disk',
    errno.ESTALE: 'check the disk',
    errno.EMFILE: 'raise `ulimit -n`, or use fewer workers',
    errno.ENFILE: 'close other programs, or use fewer workers',
    errno.EAGAIN: 'raise `ulimit -u`, or use fewer workers',
}
NO_MEMORY = re.compile(r'out of memory|allocate memory|insufficient memory|ALLOC_FAILED', re.IGNORECASE)


class UserError(ValueError):
    """Bad input, said in one sentence: what is wrong, where, and what to do.

    The commands print it and exit with status 2.
    """


def reports_errors(main: Callable[P, R]) -> Callable[P, R]:
    """Decorate a command's `main`, the one boundary where errors end.

    A `UserError` becomes `error: <sentence>` on stderr and exit status 2, without a traceback; so does what the
    machine has no more of, see `lack`. Ctrl-C, SIGTERM and SIGHUP become one line, of the leading process alone, and
    exit status 128 and the signal's number; see `tokenlabel.stopping`. A reader that goes away (`| head`) ends the
    command without a word and with status 141. Anything else is a defect: its traceback, a line that says so, and exit
    status 1. Of several processes that torchrun started the first to fail speaks, and all end with it.
    """

    @functools.wraps(main)
    def reporting(*args: P.args, **kwargs: P.kwargs) -> R:
        end_with_launcher()
        prepare_streams()
        try:
            with stops_at_signals():
                result = main(*args, **kwargs)
                sys.stdout.flush()
            return result
        except UserError as error:
            if speaks_first():
                say(f'error: {sentence_of(error)}')
            raise SystemExit(2) from error
        except KeyboardInterrupt as stop:
            line = farewell(stop)
            if line and speaks_first():
                say(line)
            raise SystemExit(status_of(stop)) from None
        except Exception as error:
            if isinstance(error, BrokenPipeError) and nobody_reads():
                raise SystemExit(CLOSED_OUTPUT) from None
            sentence = lack(error)
            if speaks_first():
                if sentence is None:
                    with suppress(OSError):
                        traceback.print_exc()
                say(f'error: {sentence}' if sentence else BUG)
            raise SystemExit(2 if sentence else 1) from error
        finally:
            finish_stdout()

    return reporting


def sentence_of(error: UserError) -> str:
    """What an error says. A loader's worker hands its error on inside the text of a traceback, the sentence last."""
    return str(error).strip().split('UserError: ')[-1]


def lack(error: Exception) -> str | None:
    """What the machine has no more of or does not allow, in one sentence; None where an error says something else."""
    reason = _first_sentence(error)
    if is_out_of_memory(error):
        return f'Memory ran out ({reason}): choose a smaller batch, smaller images or fewer workers.'
    if isinstance(error, OSError) and error.errno in REFUSALS:
        where = error.filename or 'Standard output, or another file,'
        return f'{where} cannot be read or written ({error.strerror}): {REFUSALS[error.errno]}.'
    if isinstance(error, RuntimeError) and 'DataLoader worker' in str(error) and 'Caught ' not in str(error):
        return f'A process that loads data died, for want of memory perhaps ({reason}): choose fewer workers.'
    if type(error).__name__ in ('DistNetworkError', 'DistStoreError'):
        return f'The processes cannot meet ({reason}): check MASTER_ADDR, and choose another PORT.'
    return None


def is_out_of_memory(error: Exception) -> bool:
    """Whether a CPU or a GPU has no memory left for what was asked."""
    if isinstance(error, MemoryError) or type(error).__name__ == 'OutOfMemoryError':
        return True
    return (isinstance(error, (RuntimeError, OSError)) or type(error).__module__ == 'cv2') and bool(
        NO_MEMORY.search(str(error))
    )


def _first_sentence(error: Exception) -> str:
    """The beginning of what an error says, for parentheses."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].split('. ')[0].rstrip('.')
