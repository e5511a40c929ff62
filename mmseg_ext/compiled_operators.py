"""MMSegmentation without mmcv's compiled operators, which nothing here uses.

The original mmsegmentation imports some of them unconditionally, and mmcv-lite has none; the maintained distribution
does without them by itself. Where the import fails for want of them, stand-ins take their place: using one
raises an error that names the operator and what to install.
"""

import importlib
import sys
from types import ModuleType
from typing import NoReturn

from tokenlabel.errors import UserError

COMPILED = 'mmcv._ext'
# What MMSegmentation imports operators from.
OPERATORS = ('mmcv.ops', 'mmcv.ops.point_sample')


def import_without_operators(module: str) -> None:
    """Imports a module that may want compiled operators, with stand-ins for them if mmcv has none.

    Args:
        module: dotted name.

    Raises:
        ImportError: it is missing, or cannot be imported for another reason.
    """
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != COMPILED:
            raise
        sys.modules |= {name: _StandIns(name) for name in OPERATORS}
        importlib.import_module('mmcv').ops = sys.modules['mmcv.ops']
        importlib.import_module(module)


class _StandIns(ModuleType):
    """A module of operators, of any name."""

    __path__ = ()

    def __getattr__(self, name: str) -> type:
        if name.startswith('__'):
            raise AttributeError(name)
        return type(name, (_StandIn,), {})


class _StandIn:
    """An operator that is not there: a function when called, a module when made."""

    def __init__(self, *args, **kwargs) -> NoReturn:
        raise UserError(
            f'{type(self).__name__} is a compiled operator of mmcv, and this mmcv has none: install mmcv with its '
            'operators for your PyTorch (https://mmcv.readthedocs.io, "Install mmcv"), or choose a part without it.'
        )
