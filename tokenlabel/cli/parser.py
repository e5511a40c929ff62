"""The argument parser of all commands, and the types of their flags."""

import argparse
import ast
import inspect
import math
import re
from collections.abc import Callable
from typing import Any

import timm
import torch

from tokenlabel.devices import usable_device
from tokenlabel.errors import UserError
from tokenlabel.processes.launch_environment import cores_per_process

UNITS = {'': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}
# Larger values are probably typing errors, and would exhaust the memory.
MAX_WORKERS, MAX_BATCH, MAX_SIDE = 1024, 2**16, 8192
THINNEST_CROP = 0.001


class Parser(argparse.ArgumentParser):
    """An argument parser that raises `UserError`, which `reports_errors` shows as one sentence."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{'formatter_class': argparse.RawDescriptionHelpFormatter} | options)

    def error(self, message: str) -> None:
        """Raises `UserError`."""
        raise UserError(f'{message}; --help lists all options.')


def whole(least: int = 0, most: int | None = None) -> Callable[[str], int]:
    """An argument type: integers from `least` to `most`."""
    bounds = f'from {least} on' if most is None else f'from {least} to {most}'

    def number(text: str) -> int:
        if not re.fullmatch(r'[+-]?[0-9]{1,18}', text.strip()):
            raise argparse.ArgumentTypeError(f'{text!r} is not a whole number {bounds}')
        if int(text) < least or (most is not None and int(text) > most):
            raise argparse.ArgumentTypeError(f'{text} is not {bounds}')
        return int(text)

    return number


positive = whole(1)
worker_count = whole(0, MAX_WORKERS)
batch_size = whole(1, MAX_BATCH)
side = whole(1, MAX_SIDE)


def add_workers(parser: Any, what: str) -> None:
    """Adds `--workers`, by default the number of cores per process, at most 16."""
    usual = min(cores_per_process(), 16)
    parser.add_argument('--workers', type=worker_count, default=usual, help=f'{what} (default: {usual}, by CPU cores)')


def real(text: str) -> float:
    """An argument type: finite numbers."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f'{text!r} is not a finite number')
    return number


def share(text: str) -> float:
    """An argument type: numbers above 0 and at most 1."""
    if not 0 < real(text) <= 1:
        raise argparse.ArgumentTypeError(f'{text} is not above 0 and at most 1')
    return real(text)


def fraction(text: str) -> float:
    """An argument type: numbers from 0 to 1."""
    if not 0 <= real(text) <= 1:
        raise argparse.ArgumentTypeError(f'{text} is not between 0 and 1')
    return real(text)


def positive_real(text: str) -> float:
    """An argument type: numbers above 0."""
    if real(text) <= 0:
        raise argparse.ArgumentTypeError(f'{text} is not above 0')
    return real(text)


def crop(text: str) -> tuple[float, ...]:
    """An argument type: left, top, width and height of a crop, in fractions of the image."""
    parts = text.split(',')
    if len(parts) != 4:
        raise argparse.ArgumentTypeError(
            f'{text!r} is not a crop: give LEFT,TOP,WIDTH,HEIGHT as fractions of the image'
        )
    left, top, width, height = box = tuple(map(real, parts))
    if min(left, top) < 0 or min(width, height) < THINNEST_CROP or max(left + width, top + height) > 1 + 1e-6:
        raise argparse.ArgumentTypeError(
            f'the crop {text} is not inside the image: LEFT and TOP must be at least 0, WIDTH and HEIGHT at least '
            f'{THINNEST_CROP}, and LEFT + WIDTH and TOP + HEIGHT at most 1'
        )
    return box


def size_in_bytes(text: str) -> int | None:
    """An argument type: a size such as `800M` or `2.5G` in bytes, or None for `none`."""
    if text.lower() == 'none':
        return None
    match = re.fullmatch(r'([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([KMGT]?)(?:i?B)?', text.strip(), re.IGNORECASE)
    size = int(float(match[1]) * UNITS[match[2].upper()]) if match else 0
    if size < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is not a size: give a size such as 800M or 4G, or none')
    return size


def device(text: str) -> torch.device:
    """An argument type: an available device."""
    try:
        return usable_device(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error).rstrip('.')) from error


def device_name(text: str) -> str:
    """An argument type: the name of an available device."""
    return str(device(text))


class ModelKwargs(argparse.Action):
    """Parses `NAME=VALUE ...` to keyword arguments of a network. VALUE is a Python literal, otherwise text."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any) -> None:
        arguments: dict[str, Any] = {}
        for text in values:
            key, equals, value = text.partition('=')
            if not equals or not key.isidentifier():
                raise argparse.ArgumentError(self, f'{text!r} is not of the form NAME=VALUE')
            if key in arguments:
                raise argparse.ArgumentError(self, f'{key} is given twice')
            if key in CREATING:
                raise argparse.ArgumentError(self, f'{key} is not an argument of a network')
            try:
                arguments[key] = ast.literal_eval(value)
            except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
                if value[:1] in tuple('[({"\''):
                    raise argparse.ArgumentError(self, f'{text!r} has an unclosed bracket or quote') from error
                arguments[key] = value
        setattr(namespace, self.dest, arguments)


# Arguments of timm's `create_model` itself, some of which load weights other than --checkpoint.
CREATING = frozenset(inspect.signature(timm.create_model).parameters) - {'kwargs'}
