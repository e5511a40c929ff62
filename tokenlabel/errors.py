"""The one exception for bad input, and how the tools report it."""

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec('P')
R = TypeVar('R')


class UserError(ValueError):
    """Bad input, said in one sentence: what is wrong, where, and what to do.

    The tools print it and exit with status 2.
    """


def reports_errors(main: Callable[P, R]) -> Callable[P, R]:
    """Decorate a tool's `main`: a `UserError` becomes `error: <sentence>` on stderr and exit status 2, no traceback."""

    @functools.wraps(main)
    def reporting(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return main(*args, **kwargs)
        except UserError as error:
            # a loader's worker hands its error on inside the text of a traceback, the sentence last
            sentence = str(error).strip().split('UserError: ')[-1]
            print(f'error: {sentence}', file=sys.stderr)
            raise SystemExit(2) from error

    return reporting
