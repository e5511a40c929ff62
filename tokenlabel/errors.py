"""The one exception for bad input, and how commands report it."""

import functools
import io
import os
import sys
import traceback
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from tokenlabel.processes import end_with_launcher, speaks_first

P = ParamSpec('P')
R = TypeVar('R')

BUG = (
    'error: this is a bug of tokenlabel, not of your input: please report it with the command, the traceback above and '
    'the versions that `pip list` prints, at the issue tracker of the project.'
)


class UserError(ValueError):
    """Bad input, said in one sentence: what is wrong, where, and what to do.

    The commands print it and exit with status 2.
    """


def reports_errors(main: Callable[P, R]) -> Callable[P, R]:
    """Decorate a command's `main`, the one boundary where errors end.

    A `UserError` becomes `error: <sentence>` on stderr and exit status 2, without a traceback. Ctrl-C becomes one line
    and exit status 130, of the leading process alone. Anything else is a defect: its traceback, a line that says so,
    and exit status 1. Of several processes that torchrun started the first to fail speaks, and all end with it.
    """

    @functools.wraps(main)
    def reporting(*args: P.args, **kwargs: P.kwargs) -> R:
        end_with_launcher()
        for stream in (sys.stdout, sys.stderr):
            # names of files may be no UTF-8, or more than a terminal's encoding has
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors='backslashreplace')
        try:
            return main(*args, **kwargs)
        except UserError as error:
            if speaks_first():
                print(f'error: {sentence_of(error)}', file=sys.stderr)
            raise SystemExit(2) from error
        except KeyboardInterrupt:
            if os.environ.get('RANK', '0') == '0':
                print('Stopped.', file=sys.stderr)
            raise SystemExit(130) from None
        except Exception:
            if speaks_first():
                traceback.print_exc()
                print(BUG, file=sys.stderr)
            raise SystemExit(1) from None

    return reporting


def sentence_of(error: UserError) -> str:
    """What an error says. A loader's worker hands its error on inside the text of a traceback, the sentence last."""
    return str(error).strip().split('UserError: ')[-1]
