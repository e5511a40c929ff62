"""Imports MMSegmentation without mmcv's compiled operators, which this package does not use.

The original mmsegmentation imports some of them unconditionally, but mmcv-lite has none. The maintained distribution
does not need them. If the import fails because they are missing, stand-ins replace them. Using a stand-in raises an
error that names the operator and the package to install.
"""

import importlib
import sys
from types import ModuleType
from typing import NoReturn

from tokenlabel.errors import UserError

COMPILED = 'mmcv._ext'
# The modules from which MMSegmentation imports operators.
OPERATORS = ('mmcv.ops', 'mmcv.ops.point_sample')


def import_without_operators(module: str) -> None:
    """Imports a module that may need compiled operators, with stand-ins if mmcv has none.

    Args:
        module: dotted name.

    Raises:
        ImportError: the module is missing, or its import fails for another reason.
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
    """A stand-in module that has an operator of any name."""

    __path__ = ()

    def __getattr__(self, name: str) -> type:
        if name.startswith('__'):
            raise AttributeError(name)
        return type(name, (_StandIn,), {})


class _StandIn:
    """A stand-in for a missing operator, both for functions and for classes."""

    def __init__(self, *args, **kwargs) -> NoReturn:
        raise UserError(
            f'{type(self).__name__} is a compiled operator of mmcv, and this mmcv has none: install mmcv with its '
            'operators for your PyTorch (https://mmcv.readthedocs.io, "Install mmcv"), or choose a part without it.'
        )
