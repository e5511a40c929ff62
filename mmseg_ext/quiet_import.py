"""Imports MMSegmentation without its remarks on optional parts that nothing here uses: three lines in every command."""

import contextlib
import io
import sys
import warnings

from mmseg_ext.compiled_operators import import_without_operators

# What mmseg prints when its optional data set package is absent, and what mmcv warns of when it was built without
# compiled operators.
KNOWN_LINES = frozenset({'Could not import OneDL'})
KNOWN_WARNING = r'Fail to import ``MultiScaleDeformableAttention``'


def import_quietly(*modules: str) -> None:
    """Imports modules, holding back exactly the two known remarks on optional parts; all else is shown.

    Args:
        *modules: Dotted module names, imported in order.

    Raises:
        ImportError: If a module is missing.
    """
    printed = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(printed):
            warnings.filterwarnings('ignore', message=KNOWN_WARNING, category=UserWarning)
            for module in modules:
                import_without_operators(module)
    finally:
        for line in printed.getvalue().splitlines(keepends=True):
            if line.strip() not in KNOWN_LINES:
                sys.stdout.write(line)
