"""Timing two ways of the same thing in turn, and saying how they compare."""

import platform
import statistics
import time
from collections.abc import Callable

import torch


def seconds(run: Callable[[], object], device: str) -> float:
    """Wall-clock time of one run, the device's queue emptied before and after."""
    synchronize = torch.cuda.synchronize if device.startswith('cuda') else lambda: None
    synchronize()
    begin = time.perf_counter()
    run()
    synchronize()
    return time.perf_counter() - begin


def report(what: str, pairs: list[tuple[float, float]]) -> None:
    """Medians of both ways and of the ratio pair by pair."""
    ours, other = (1000 * statistics.median(column) for column in zip(*pairs, strict=True))
    ratios = sorted(slow / fast for fast, slow in pairs)
    print(f'{what}: {ours:.1f} ms against {other:.1f} ms, {statistics.median(ratios):.1f} times faster', end=' ')
    print(f'({ratios[0]:.1f} to {ratios[-1]:.1f} over {len(pairs)} pairs)')


def versions() -> str:
    """Machine, Python and torch of this run."""
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f'{torch.get_num_threads()} CPU threads'
    return f'{where}, Python {platform.python_version()}, torch {torch.__version__}'
