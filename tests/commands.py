"""Commands in the tests' own process."""

import importlib
from types import ModuleType


def command(name: str) -> ModuleType:
    """The module of a command."""
    return importlib.import_module(f'tokenlabel.cli.{name}')


def run_command(name: str, *arguments: object) -> int:
    """The exit status of a command."""
    return command(name).main([str(argument) for argument in arguments])
