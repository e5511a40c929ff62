"""Writes a label store in a background thread, while the next images are annotated."""

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from torch import Tensor

from tokenlabel.labels.store.writer import LabelWriter


class BackgroundWriter:
    """Passes batches to a `LabelWriter` from a thread, in order; all waiting batches share one fsync.

    Use it in a `with` block. The block ends when all batches are on disk, even after an exception. Errors of the thread
    are raised by the next `write`, or at the end of the block.

    Args:
        writer: receives the batches; nothing else may write to it meanwhile.
        depth: size of the queue; `write` blocks while it is full.
    """

    def __init__(self, writer: LabelWriter, depth: int = 8) -> None:
        self.writer = writer
        self._jobs: queue.Queue[_Job | None] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name='label writer', daemon=True)
        self._thread.start()

    def write(
        self,
        batch: range,
        scores: Tensor,
        classes: Tensor,
        sizes: Tensor,
        *,
        wait: Callable[[], None] = lambda: None,
        written: Callable[[], None] = lambda: None,
    ) -> None:
        """Queues a batch for `LabelWriter.write`.

        Args:
            batch, scores, classes, sizes: as in `LabelWriter.write`, but CPU tensors, which must not change afterwards.
            wait: called in the thread before the tensors are read, for example to wait for copies from a GPU.
            written: called in the thread once the batch is on disk.

        Raises:
            any earlier error of the thread.
        """
        self._raise()
        self._jobs.put(_Job(batch, (scores, classes, sizes), wait, written))

    def close(self) -> None:
        """Wait until everything is on disk.

        Raises:
            any error of the thread.
        """
        self._finish()
        self._raise()

    def __enter__(self) -> 'BackgroundWriter':
        return self

    def __exit__(self, kind: type | None, *exception: object) -> None:
        self._finish()
        if kind is None:
            self._raise()

    def _finish(self) -> None:
        if self._thread.is_alive():
            self._jobs.put(None)
            self._thread.join()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        waiting: list[_Job | None] = []
        while None not in waiting:
            waiting = [self._jobs.get()]
            with suppress(queue.Empty):
                while True:
                    waiting.append(self._jobs.get_nowait())
            # After an error, keep emptying the queue, so that `write` never blocks forever.
            if self._error is None:
                try:
                    self._write([job for job in waiting if job is not None])
                except BaseException as error:
                    self._error = error

    def _write(self, jobs: list['_Job']) -> None:
        batches = []
        for job in jobs:
            job.wait()
            batches.append((job.batch, *(array.numpy() for array in job.arrays)))
        if batches:
            self.writer.write_all(batches)
        for job in jobs:
            job.written()


class _Job(NamedTuple):
    batch: range
    arrays: tuple[Tensor, Tensor, Tensor]
    wait: Callable[[], None]
    written: Callable[[], None]
