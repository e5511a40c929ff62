"""Error handling of every command: errors become one sentence and an exit status."""

import functools
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec

from tokenlabel.errors import UserError, lack
from tokenlabel.processes.launcher import end_with_launcher, speaks_first
from tokenlabel.processes.signals import farewell, status_of, stops_at_signals
from tokenlabel.processes.standard_streams import finish_stdout, nobody_reads, prepare_streams, say

P = ParamSpec('P')

BUG = (
    'error: this is a bug of tokenlabel, not of your input: please report it with the command, the traceback above and '
    'the versions that `pip list` prints, at the issue tracker of the project.'
)
CLOSED_OUTPUT = 141  # 128 + SIGPIPE, as shells report it


def reports_errors(main: Callable[P, int | None]) -> Callable[P, int]:
    """Decorates a command's `main` with error handling; the decorated function returns the exit status.

    | error | output | exit status |
    |---|---|---|
    | `UserError`, or an error caused by the machine (see `lack`) | `error: <sentence>` on stderr | 2 |
    | Ctrl-C, SIGTERM, SIGHUP (see `tokenlabel.processes.signals`) | one line from the first process | 128 + signal |
    | the reader of stdout closed it (`| head`) | none | 141 |
    | anything else, a defect | its traceback and a request to report it | 1 |

    If torchrun started several processes, the first one to fail reports the error and all of them end.
    """

    @functools.wraps(main)
    def reporting(*args: P.args, **kwargs: P.kwargs) -> int:
        end_with_launcher()
        prepare_streams()
        try:
            with stops_at_signals():
                status = main(*args, **kwargs)
                sys.stdout.flush()
            return status or 0
        except SystemExit as end:  # raised by --help, and by a run that a signal stopped
            return end.code or 0
        except UserError as error:
            if speaks_first():
                say(f'error: {sentence_of(error)}')
            return 2
        except KeyboardInterrupt as stop:
            line = farewell(stop)
            if line and speaks_first():
                say(line)
            return status_of(stop)
        except Exception as error:
            if isinstance(error, BrokenPipeError) and nobody_reads():
                return CLOSED_OUTPUT
            sentence = lack(error)
            if speaks_first():
                if sentence is None:
                    with suppress(OSError):
                        traceback.print_exc()
                say(f'error: {sentence}' if sentence else BUG)
            return 2 if sentence else 1
        finally:
            finish_stdout()

    return reporting


def sentence_of(error: UserError) -> str:
    """The message of an error. An error of a DataLoader worker contains a traceback, with the message at its end."""
    return str(error).strip().split('UserError: ')[-1]
