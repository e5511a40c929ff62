"""Timing of two implementations in turn, and a report of the speed-up."""

import platform
import statistics
import time
from collections.abc import Callable

import torch


def seconds(run: Callable[[], object], device: str) -> float:
    """Wall-clock time of one run in seconds. Synchronises the device before and after."""
    synchronize = torch.cuda.synchronize if device.startswith('cuda') else lambda: None
    synchronize()
    begin = time.perf_counter()
    run()
    synchronize()
    return time.perf_counter() - begin


def report(what: str, pairs: list[tuple[float, float]]) -> None:
    """Prints the median times of both implementations, and median, minimum and maximum of the speed-up per pair."""
    ours, other = (1000 * statistics.median(column) for column in zip(*pairs, strict=True))
    ratios = sorted(slow / fast for fast, slow in pairs)
    print(f'{what}: {ours:.1f} ms against {other:.1f} ms, {statistics.median(ratios):.1f} times faster', end=' ')
    print(f'({ratios[0]:.1f} to {ratios[-1]:.1f} over {len(pairs)} pairs)')


def versions() -> str:
    """Device and versions of Python and PyTorch."""
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f'{torch.get_num_threads()} CPU threads'
    return f'{where}, Python {platform.python_version()}, torch {torch.__version__}'
