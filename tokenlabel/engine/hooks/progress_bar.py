"""The progress bar of training and testing in a terminal."""

import atexit
import logging
import sys

from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import Progress

from tokenlabel.processes.progress import progress_bar


@HOOKS.register_module()
class ProgressBar(Hook):
    """A bar below the log lines: iterations, images per second over all processes, time left.

    Rank 0 draws it, and only in a terminal; the lines of the log file have the same numbers.
    """

    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self._progress: Progress | None = None

    def before_train(self, runner: Runner) -> None:
        self._start(runner, 'Training', runner.max_iters, runner.iter)

    def before_test(self, runner: Runner) -> None:
        self._start(runner, 'Testing', len(runner.test_dataloader), 0)

    def _start(self, runner: Runner, title: str, total: int, completed: int) -> None:
        console = Console()
        if not (is_main_process() and console.is_terminal):
            return
        self._progress = progress_bar(console, speed_estimate_period=120)
        stdout = sys.stdout
        self._progress.start()
        atexit.register(self._stop)  # an error ends the run without `after_train`, and the cursor is hidden
        # the logger's handlers hold the stdout from before the bar started
        self._handlers = [
            handler
            for handler in runner.logger.handlers
            if isinstance(handler, logging.StreamHandler) and handler.stream is stdout
        ]
        self._stdout = stdout
        for handler in self._handlers:
            handler.setStream(sys.stdout)
        self._task = self._progress.add_task(title, total=total, completed=completed, images_per_step=0)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        self._advance(runner.iter + 1, data_batch)

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        self._advance(batch_idx + 1, data_batch)

    def _advance(self, completed: int, data_batch: dict) -> None:
        if self._progress is not None:
            images = len(next(iter(data_batch.values()))) * get_world_size()
            self._progress.update(self._task, completed=completed, images_per_step=images)

    def before_val(self, runner: Runner) -> None:
        if self._progress is not None:
            self._progress.update(self._task, description='Validating')

    def after_val(self, runner: Runner) -> None:
        if self._progress is not None:
            self._progress.update(self._task, description='Training')

    def after_train(self, runner: Runner) -> None:
        self._stop()

    def after_test(self, runner: Runner) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._progress is None:
            return
        self._progress.stop()
        self._progress = None
        for handler in self._handlers:
            handler.setStream(self._stdout)
        atexit.unregister(self._stop)
